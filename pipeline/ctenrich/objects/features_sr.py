"""The object kind ``features_sr``: identity of the feature vectors of a product."""

from __future__ import annotations

from ctenrich.encode.features_sr import SERIES_DESCRIPTION, encode_features_sr
from ctenrich.encode.sr_document import ENHANCED_SR
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_features_sr
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, FeatureVectors, SegmentMasks
from ctenrich.series_store import ProductRecords

__all__ = ["FEATURES_SR"]


def _encode_features_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_features_sr(
        records.get(FeatureVectors),
        records.masks,
        context.written["seg"],
        records.series,
        settings=context.settings,
        workspace=context.workspace,
    )


def _why_no_features_sr(records: ProductRecords) -> Reason | None:
    found = records.get(FeatureVectors)
    return None if any(model.vectors for model in found.models) else Reason.NO_FEATURES


FEATURES_SR = ObjectDefinition(
    key="features_sr",
    title="deep features (SR)",
    sop_class_uid=ENHANCED_SR,
    series_description=SERIES_DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SegmentMasks, FeatureVectors),
    encode=_encode_features_sr_object,
    prove=prove_features_sr,
    why_empty=_why_no_features_sr,
)
