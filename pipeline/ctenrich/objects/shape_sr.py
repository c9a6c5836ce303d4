"""The object kind ``shape_sr``: measurements of a product's segments."""

from __future__ import annotations

from ctenrich.encode.shape_sr import SERIES_DESCRIPTION, encode_shape_sr
from ctenrich.encode.sr_document import ENHANCED_SR
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_shape_sr
from ctenrich.records import EncodedObject, SegmentMasks, ShapeMeasurements

__all__ = ["SHAPE_SR"]


def _encode_shape_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_shape_sr(
        records.shape,
        records.masks,
        context.written["seg"],
        records.series,
        settings=context.settings,
        workspace=context.workspace,
    )


SHAPE_SR = ObjectDefinition(
    key="shape_sr",
    title="shape measurements (SR)",
    sop_class_uid=ENHANCED_SR,
    series_description=SERIES_DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SegmentMasks, ShapeMeasurements),
    encode=_encode_shape_sr_object,
    prove=prove_shape_sr,
)
