"""Objects that are refused, because no change of their header removes what identifies a person."""

from __future__ import annotations

from pydicom import uid
from pydicom.dataset import Dataset

from ctenrich.dicom.sop_classes import LABEL_MAP_SEGMENTATION, SECONDARY_CAPTURE, is_structured_report
from ctenrich.dicom.values import number, text, texts
from ctenrich.errors import InputError
from ctenrich.pseudonymise.profile import Clean, Options
from ctenrich.reasons import Reason

__all__ = ["CLEANED_CLASSES", "check_can_be_cleaned"]

CLEANED_CLASSES = frozenset(
    str(one)
    for one in (
        uid.CTImageStorage,
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
        uid.RTImageStorage,
        uid.RTDoseStorage,
        uid.RTStructureSetStorage,
        uid.RTPlanStorage,
        uid.RTIonPlanStorage,
        uid.RTBeamsTreatmentRecordStorage,
        uid.RTIonBeamsTreatmentRecordStorage,
        uid.RTBrachyTreatmentRecordStorage,
        uid.RTTreatmentSummaryRecordStorage,
        uid.SegmentationStorage,
        LABEL_MAP_SEGMENTATION,
        uid.SpatialRegistrationStorage,
        uid.DeformableSpatialRegistrationStorage,
        uid.RealWorldValueMappingStorage,
        uid.KeyObjectSelectionDocumentStorage,
        uid.BasicTextSRStorage,
        uid.EnhancedSRStorage,
        uid.ComprehensiveSRStorage,
        uid.Comprehensive3DSRStorage,
        uid.XRayRadiationDoseSRStorage,
    )
)
"""SOP classes whose objects are cleaned; all others are refused."""
_PRESENTATION_STATE = str(uid.GrayscaleSoftcopyPresentationStateStorage)
_ENCAPSULATED = str(uid.EncapsulatedPDFStorage).removesuffix("1")
_CAPTURES = frozenset({"SCREEN SAVE", "SCREENSHOT", "SECONDARY CAPTURE", "PATIENT PROTOCOL", "DOSE_INFO", "DISPLAY"})


def check_can_be_cleaned(dataset: Dataset, options: Options) -> None:
    """Refuse an object of a kind that cannot be cleaned.

    Parameters
    ----------
    dataset : Dataset
        Header of the object.
    options : Options
        Structured reports need the cleaning of structured content, presentation states that of graphics.

    Raises
    ------
    InputError
        ENCAPSULATED_DOCUMENT, BURNED_IN_TEXT or CLASS_NOT_CLEANED.
    """
    sop_class = text(dataset, "SOPClassUID")
    if sop_class.startswith(_ENCAPSULATED) or "EncapsulatedDocument" in dataset:
        raise InputError(Reason.ENCAPSULATED_DOCUMENT, "the object is a document that is encapsulated in DICOM")
    if sop_class.startswith(SECONDARY_CAPTURE) and sop_class[len(SECONDARY_CAPTURE) :][:1] in ("", "."):
        raise InputError(Reason.BURNED_IN_TEXT, "a secondary capture may show text in its pixels")
    needed = _option_for(sop_class)
    allowed = sop_class in CLEANED_CLASSES or sop_class == _PRESENTATION_STATE
    if not allowed or (needed is not None and needed not in options.clean):
        hint = f"add --clean {needed.value}" if needed is not None and allowed else ""
        raise InputError(Reason.CLASS_NOT_CLEANED, "objects of this SOP class are not cleaned", hint)
    _check_pixels(dataset)


def _option_for(sop_class: str) -> Clean | None:
    if sop_class == _PRESENTATION_STATE:
        return Clean.GRAPHICS
    return Clean.STRUCTURED_CONTENT if is_structured_report(sop_class) else None


def _check_pixels(dataset: Dataset) -> None:
    stated = text(dataset, "BurnedInAnnotation").upper()
    if stated not in ("", "NO"):
        raise InputError(Reason.BURNED_IN_TEXT, "Burned In Annotation is not NO")
    values = [value.upper() for value in texts(dataset, "ImageType")]
    if any(value in _CAPTURES or value.endswith(" PROT") for value in values):
        raise InputError(Reason.BURNED_IN_TEXT, "by its Image Type, the image is a capture of a screen")
    if text(dataset, "ConversionType"):
        raise InputError(Reason.BURNED_IN_TEXT, "by its Conversion Type, the image is a secondary capture")
    if (number(dataset, "SamplesPerPixel") or 1) > 1:
        raise InputError(Reason.BURNED_IN_TEXT, "a colour image of this class is a capture of a screen")
