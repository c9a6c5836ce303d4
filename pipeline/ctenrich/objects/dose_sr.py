"""The object kind ``dose_sr``: dose metrics of a product's segments."""

from __future__ import annotations

from ctenrich.encode.dose_sr import SERIES_DESCRIPTION, encode_dose_sr, why_no_doses
from ctenrich.encode.sr_document import ENHANCED_SR
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_dose_sr
from ctenrich.reasons import Reason
from ctenrich.records import DoseMeasurements, EncodedObject, SegmentMasks
from ctenrich.series_store import ProductRecords

__all__ = ["DOSE_SR"]


def _encode_dose_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_dose_sr(
        records.doses,
        records.masks,
        context.written["seg"],
        records.series,
        settings=context.settings,
        workspace=context.workspace,
    )


def _why_no_dose_sr(records: ProductRecords) -> Reason | None:
    return why_no_doses(records.doses)


DOSE_SR = ObjectDefinition(
    key="dose_sr",
    title="dose metrics (SR)",
    sop_class_uid=ENHANCED_SR,
    series_description=SERIES_DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SegmentMasks, DoseMeasurements),
    encode=_encode_dose_sr_object,
    prove=prove_dose_sr,
    why_empty=_why_no_dose_sr,
)
