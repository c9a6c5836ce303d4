"""The object kind ``stated_sr``: measurements of a product's segments that another program made."""

from __future__ import annotations

from ctenrich.encode.sr_document import ENHANCED_SR
from ctenrich.encode.stated_sr import SERIES_DESCRIPTION, encode_stated_sr
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_stated_sr
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, SegmentMasks, StatedMeasurements
from ctenrich.series_store import ProductRecords

__all__ = ["STATED_SR"]


def _encode_stated_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_stated_sr(
        records.get(StatedMeasurements),
        records.masks,
        context.written["seg"],
        records.series,
        settings=context.settings,
        workspace=context.workspace,
    )


def _why_no_stated_sr(records: ProductRecords) -> Reason | None:
    saved = records.store.has(StatedMeasurements, records.uid, records.product)
    return None if saved else Reason.NO_MEASUREMENTS


STATED_SR = ObjectDefinition(
    key="stated_sr",
    title="stated measurements (SR)",
    sop_class_uid=ENHANCED_SR,
    series_description=SERIES_DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SegmentMasks, StatedMeasurements),
    encode=_encode_stated_sr_object,
    prove=prove_stated_sr,
    why_empty=_why_no_stated_sr,
)
