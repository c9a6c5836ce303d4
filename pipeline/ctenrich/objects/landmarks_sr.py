"""The object kind ``landmarks_sr``: landmarks of a series."""

from __future__ import annotations

from ctenrich.encode.landmarks_sr import DESCRIPTION, encode_landmarks_sr
from ctenrich.encode.sr_document import COMPREHENSIVE_3D_SR
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_landmarks_sr
from ctenrich.records import EncodedObject, Landmarks, SliceScores

__all__ = ["LANDMARKS_SR"]


def _encode_landmarks_sr_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_landmarks_sr(
        records.landmarks, records.scores, records.series, settings=context.settings, workspace=context.workspace
    )


LANDMARKS_SR = ObjectDefinition(
    key="landmarks_sr",
    title="landmarks (SR)",
    sop_class_uid=COMPREHENSIVE_3D_SR,
    series_description=DESCRIPTION,
    tables=("measurement_groups", "quantitative_measurements", "qualitative_measurements"),
    reads=(SliceScores, Landmarks),
    encode=_encode_landmarks_sr_object,
    prove=prove_landmarks_sr,
)
