"""Make an SR instance of a content tree: patient, study, equipment, evidence and dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, EnhancedSRStorage

from ctenrich import __version__
from ctenrich.encode.context import (
    MANUFACTURER,
    MODEL_NAME,
    ObjectIdentity,
    Source,
    coding_schemes,
    contributing_equipment,
    set_dates,
)
from ctenrich.encode.sr_content import make
from ctenrich.records import EncodedObject, ModelInfo, SortedSeries
from ctenrich.settings import EncodeSettings

__all__ = ["COMPREHENSIVE_3D_SR", "ENHANCED_SR", "Document", "sr_dataset"]

ENHANCED_SR = str(EnhancedSRStorage)
COMPREHENSIVE_3D_SR = str(Comprehensive3DSRStorage)


@dataclass(frozen=True)
class Document:
    """Attributes in which one kind of SR differs from another."""

    sop_class: str
    description: str
    """Series Description."""
    content: str
    """Content Description."""
    series_number: int
    schemes: frozenset[str]
    """Coding schemes to declare."""
    model: ModelInfo | None = None
    further_evidence: tuple[EncodedObject, ...] = ()
    """Objects of the same study, in addition to the CT slices, that the content refers to."""


def sr_dataset(
    document: Document,
    root: Dataset,
    series: SortedSeries,
    source: Source,
    identity: ObjectIdentity,
    settings: EncodeSettings,
) -> Dataset:
    """Build an SR instance (PS3.3 A.35) with `root` as its content.

    Parameters
    ----------
    document : Document
        Attributes of this kind of SR.
    root : Dataset
        Root content item (PS3.3 C.17.3).
    series : SortedSeries
        The source series.
    source : Source
        Patient and study attributes.
    identity : ObjectIdentity
        UIDs of the SR.
    settings : EncodeSettings
        Dates.

    Returns
    -------
    Dataset
        Without file meta information.
    """
    out = Dataset()
    out.update(source.patient_and_study)
    out.update(root)
    out.SOPClassUID = document.sop_class
    out.SOPInstanceUID = identity.sop_instance_uid
    out.StudyInstanceUID = series.study_instance_uid
    out.SeriesInstanceUID = identity.series_instance_uid
    out.Modality = "SR"
    out.SeriesNumber = document.series_number
    out.InstanceNumber = 1
    out.SeriesDescription = document.description
    out.ContentDescription = document.content
    out.ReferencedPerformedProcedureStepSequence = []
    out.PerformedProcedureCodeSequence = []
    out.Manufacturer = MANUFACTURER
    out.ManufacturerModelName = MODEL_NAME
    out.SoftwareVersions = __version__
    out.DeviceSerialNumber = __version__
    out.CompletionFlag = "COMPLETE"
    out.PreliminaryFlag = "FINAL"
    out.VerificationFlag = "UNVERIFIED"
    out.CodingSchemeIdentificationSequence = coding_schemes(set(document.schemes))
    out.CurrentRequestedProcedureEvidenceSequence = [_evidence_item(series, document.further_evidence)]
    out.ContributingEquipmentSequence = contributing_equipment(document.model)
    set_dates(out, settings)
    if not out.CodingSchemeIdentificationSequence:
        del out.CodingSchemeIdentificationSequence
    return out


def _evidence_item(series: SortedSeries, further: Sequence[EncodedObject]) -> Dataset:
    def referenced(uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
        items = [make(ReferencedSOPClassUID=c, ReferencedSOPInstanceUID=i) for c, i in instances]
        return make(ReferencedSOPSequence=items, SeriesInstanceUID=uid)

    slices = [(item.sop_class_uid, item.sop_instance_uid) for item in series.slices]
    groups = [referenced(series.series_instance_uid, slices)]
    groups += [referenced(o.series_instance_uid, [(o.sop_class_uid, o.sop_instance_uid)]) for o in further]
    return make(ReferencedSeriesSequence=groups, StudyInstanceUID=series.study_instance_uid)
