"""The object kind ``regions_sr``: body regions of every slice of a series."""

from __future__ import annotations

from ctenrich.encode.regions_sr import DESCRIPTION, encode_regions_sr
from ctenrich.encode.sr_document import COMPREHENSIVE_3D_SR
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_regions_sr
from ctenrich.records import EncodedObject, Regions, SliceScores

__all__ = ["REGIONS_SR"]


def _encode_regions_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_regions_sr(
        records.regions, records.scores, records.series, settings=context.settings, workspace=context.workspace
    )


REGIONS_SR = ObjectDefinition(
    key="regions_sr",
    title="body regions (SR)",
    sop_class_uid=COMPREHENSIVE_3D_SR,
    series_description=DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SliceScores, Regions),
    encode=_encode_regions_sr_object,
    prove=prove_regions_sr,
)
