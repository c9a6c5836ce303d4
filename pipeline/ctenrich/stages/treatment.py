"""The treatment of a series in a run, and the names that people decided on for its ROIs."""

from __future__ import annotations

from collections.abc import Mapping

from ctenrich.stages.stage import StageContext
from ctenrich.structure_names.standard import segment_of
from ctenrich.treatments.files import find_treatment
from ctenrich.treatments.records import Treatment

__all__ = ["decided_segments", "treatment_of"]

_COHORT = "cohort.parquet"


def treatment_of(context: StageContext) -> Treatment | None:
    """Return the treatment whose planning CT is the series; None in a cohort without treatments."""
    return find_treatment(context.workspace.root / _COHORT, context.uid)


def decided_segments(context: StageContext) -> Mapping[str, str]:
    """Return the segment of each ROI name on whose standard name people decided, for the patient of the series."""
    found = treatment_of(context)
    return {
        roi.name: segment_of(roi.standard_name)
        for structures in (found.structure_sets if found is not None else ())
        for roi in structures.rois
        if roi.standard_name
    }
