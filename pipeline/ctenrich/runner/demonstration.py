"""Recognise the studies that this package generated; demonstration models are refused on all others."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from ctenrich.errors import UsageError
from ctenrich.phantom.identity import is_generated_study
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, ModelInfo, SeriesEntry

__all__ = ["check_demonstration", "is_generated"]


def check_demonstration(model: ModelInfo, cohort: Cohort | None) -> None:
    """Refuse a demonstration model if the cohort has a study that this package did not generate.

    Parameters
    ----------
    model : ModelInfo
        Model of a product that is asked for.
    cohort : Cohort or None
        Series of the run; None if they are not known.

    Raises
    ------
    UsageError
        DEMO_MODEL, with the number of series that were not generated.
    """
    if not model.demo:
        return
    other = sum(not is_generated(entry) for entry in cohort.series) if cohort else 1
    if other:
        count = f"{other} of {len(cohort.series)} series are" if cohort else "these are"
        raise UsageError(
            Reason.DEMO_MODEL,
            f"{model.name} is a demonstration model, for generated studies only, and {count} not generated",
            "name a real model, or add --allow-demo-models to try the software: its results mean nothing and are "
            "marked DEMONSTRATION",
        )


def is_generated(entry: SeriesEntry) -> bool:
    """Return whether the generator of this package wrote a series.

    The Study Instance UID must be the hash that the generator derives from Patient ID and Study ID. The Study ID is
    read from the first file, if that is on this computer and the generator's usual Study ID does not fit.
    """
    study, patient = entry.study_instance_uid, entry.patient_id
    if is_generated_study(study, patient):
        return True
    if not study.startswith("2.25.") or not entry.instances:
        return False
    return is_generated_study(study, patient, _study_id(entry.instances[0].url))


def _study_id(url: str) -> str:
    """Study ID of a local file; empty if it cannot be read."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or not path.is_file():
        return ""
    try:
        return str(dcmread(path, specific_tags=["StudyID"], stop_before_pixels=True).get("StudyID") or "")
    except (InvalidDicomError, OSError, ValueError, AttributeError):
        return ""
