"""The object kind ``seg``: segmentation of a product."""

from __future__ import annotations

from pydicom.uid import SegmentationStorage

from ctenrich.encode.seg import SERIES_DESCRIPTION, encode_seg
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.proof import prove_seg
from ctenrich.records import EncodedObject, SegmentMasks

__all__ = ["SEG"]


def _encode_seg_object(context: EncodeContext) -> EncodedObject:
    records = context.records
    return encode_seg(
        records.masks, records.volume, records.series, settings=context.settings, workspace=context.workspace
    )


SEG = ObjectDefinition(
    key="seg",
    title="segmentation (SEG)",
    sop_class_uid=str(SegmentationStorage),
    series_description=SERIES_DESCRIPTION,
    tables=("segmentations",),
    reads=(SegmentMasks,),
    encode=_encode_seg_object,
    prove=prove_seg,
)
