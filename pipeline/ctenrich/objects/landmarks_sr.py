"""The object kind ``landmarks_sr``: landmarks of a series."""

from __future__ import annotations

from ctenrich.encode.landmarks_sr import DESCRIPTION, encode_landmarks_sr, has_landmarks
from ctenrich.encode.sr_document import COMPREHENSIVE_3D_SR
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_landmarks_sr
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, Landmarks, SliceScores
from ctenrich.series_store import ProductRecords

__all__ = ["LANDMARKS_SR"]


def _encode_landmarks_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_landmarks_sr(
        records.landmarks, records.scores, records.series, settings=context.settings, workspace=context.workspace
    )


def _why_no_landmarks_sr(records: ProductRecords) -> Reason | None:
    return None if has_landmarks(records.landmarks) else Reason.NO_LANDMARKS


LANDMARKS_SR = ObjectDefinition(
    key="landmarks_sr",
    title="landmarks (SR)",
    sop_class_uid=COMPREHENSIVE_3D_SR,
    series_description=DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SliceScores, Landmarks),
    encode=_encode_landmarks_sr_object,
    prove=prove_landmarks_sr,
    why_empty=_why_no_landmarks_sr,
)
