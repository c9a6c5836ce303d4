"""What every object shares: patient and study from an allow-list, equipment, dates and identifiers without chance.

Nothing of the source reaches an object but what :data:`PATIENT_AND_STUDY` names. Values that DICOM does not allow (a
wrong character, an age without unit) are repaired or dropped, and a note says so.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import config, dcmread, valuerep
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom_codes

from ctenrich import RELEASE_DATE, __version__
from ctenrich.codes.mappings import Code, mappings_sha256
from ctenrich.errors import EncodingError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.reasons import Reason
from ctenrich.records import Issue, ModelInfo, Product, Severity, SortedSeries
from ctenrich.settings import EncodeSettings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace, check_uid

if TYPE_CHECKING:
    from pydicom.sr.coding import Code as PydicomCode

__all__ = [
    "MANUFACTURER",
    "PATIENT_AND_STUDY",
    "ObjectIdentity",
    "Source",
    "code_item",
    "coding_schemes",
    "contributing_equipment",
    "identify",
    "product_title",
    "read_source",
    "set_character_set",
    "set_dates",
]

MANUFACTURER = "ctenrich"
MODEL_NAME = "ctenrich (research software)"

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Patient and General Study attributes that must be present, if only empty (PS3.3 C.7.1.1, C.7.2.1)."""

OPTIONAL = (
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
CLINICAL_TRIAL = (
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialTimePointID",
)
ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
PATIENT_AND_STUDY = (*TYPE_2, *OPTIONAL, *CLINICAL_TRIAL)
"""The allow-list: all that is copied from the source's patient and study."""


@dataclass(frozen=True)
class Source:
    """The source series as objects refer to it."""

    patient_and_study: Dataset
    """Allow-listed attributes with valid values only."""
    issues: tuple[Issue, ...]
    """A note for each value that was repaired or dropped."""


@dataclass(frozen=True)
class ObjectIdentity:
    """Identifiers of one object, derived from what made it."""

    series_instance_uid: str
    sop_instance_uid: str
    key: tuple[str, ...]

    def uid(self, *purpose: str) -> str:
        """Another UID inside the object (dimension organization, tracking)."""
        return derive_uid(*self.key, *purpose)


# ---------------------------------------------------------------- source


def read_source(series: SortedSeries, workspace: Workspace) -> Source:
    """Patient and study attributes of the first slice's file, cleaned; pixel data are never read."""
    path = workspace.resolve(series.series_instance_uid, series.slices[0].path)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        header = dcmread(path, specific_tags=list(PATIENT_AND_STUDY), stop_before_pixels=True, force=True)
        clean, issues = clean_attributes(header, check_uid(series.slices[0].sop_instance_uid))
    return Source(clean, tuple(issues))


def clean_attributes(header: Dataset, subject: str) -> tuple[Dataset, list[Issue]]:
    """Allow-listed attributes of `header` whose values are valid, Type 2 ones always present.

    Parameters
    ----------
    header : Dataset
        Any dataset; only the allow-list is looked at.
    subject : str
        SOP Instance UID that the notes name.
    """
    clean = Dataset()
    issues: list[Issue] = []

    def note(keyword: str, what: str) -> None:
        message = f"{keyword} of the source is not valid: {what}"
        issues.append(Issue("SOURCE_ATTRIBUTE", Severity.NOTE, subject, message, "ctenrich", __version__))

    for keyword in PATIENT_AND_STUDY:
        text = _text_of(header, keyword)
        if text is None:
            continue
        value = _valid(keyword, text)
        if value is None:
            note(keyword, "dropped")
            continue
        if value != text:
            note(keyword, "repaired")
        setattr(clean, keyword, value)
    for keyword in TYPE_2:
        if keyword not in clean:
            setattr(clean, keyword, "" if dictionary_VR(keyword) != "PN" else None)
    _complete_groups(clean)
    return clean, issues


def _text_of(header: Dataset, keyword: str) -> str | None:
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - a value that cannot even be decoded: whatever the decoder raises
        return "\ufffd"
    if value is None:
        return None
    if not isinstance(value, str) and hasattr(value, "__iter__") and dictionary_VR(keyword) != "PN":
        return "\\".join(str(part) for part in value) or None
    return str(value).strip(" \0") or None


def _valid(keyword: str, text: str) -> str | None:
    """The value if DICOM allows it, a repaired one where the intent is plain, else None."""
    vr = dictionary_VR(keyword)
    if "\\" in text and dictionary_VM(keyword) == "1":
        return None
    for candidate in (text, _repair(vr, text)):
        if candidate and _allowed(vr, candidate) and candidate in ENUMERATED.get(keyword, {candidate}):
            return candidate
    return None


def _allowed(vr: str, text: str) -> bool:
    if any(ord(c) < 32 or c == "\ufffd" for c in text):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            valuerep.validate_value(vr, text, config.RAISE)
    except Exception:  # noqa: BLE001 - whatever the validator objects to
        return False
    if vr == "DA":
        return _is_date(text)
    if vr == "DS":
        return re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text) is not None
    return True


def _is_date(text: str) -> bool:
    import datetime

    try:
        datetime.date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return False
    return len(text) == 8


def _repair(vr: str, text: str) -> str:
    if vr == "AS":
        match = re.fullmatch(r"(\d{1,3})\s*([DWMYdwmy]?)", text)
        return f"{int(match[1]):03d}{(match[2] or 'Y').upper()}" if match else ""
    if vr == "DA":
        match = re.fullmatch(r"(\d{4})[-./](\d{2})[-./](\d{2})", text)
        return "".join(match.groups()) if match else ""
    if vr == "TM":
        match = re.fullmatch(r"(\d{2}):(\d{2}):(\d{2})(\.\d{1,6})?", text)
        return f"{match[1]}{match[2]}{match[3]}{match[4] or ''}" if match else ""
    if vr == "CS":
        return text.upper().strip()
    return ""


def _complete_groups(clean: Dataset) -> None:
    """Keep conditional modules whole or not at all."""
    if clean.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in clean:
        clean.DeidentificationMethod = "not stated in the source's text attribute"
    if clean.get("PatientIdentityRemoved") != "YES" and "DeidentificationMethod" in clean:
        del clean.DeidentificationMethod
    needed = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID")
    if all(keyword in clean for keyword in needed):
        for keyword in CLINICAL_TRIAL:
            if keyword not in clean:
                setattr(clean, keyword, "")
    else:
        for keyword in CLINICAL_TRIAL:
            if keyword in clean:
                delattr(clean, keyword)


# ---------------------------------------------------------------- identity, equipment, dates


def identify(
    kind: str, series: SortedSeries, product: Product, settings: EncodeSettings, *made_of: str
) -> ObjectIdentity:
    """Series and SOP Instance UID of an object.

    They change with the source's UIDs and bytes, the product, the hashes in `made_of`, the mappings, the encoder's
    settings and its version, and with nothing else.
    """
    key = (
        kind,
        __version__,
        check_uid(series.study_instance_uid),
        check_uid(series.series_instance_uid),
        series.source_sha256,
        hashlib.sha256("\n".join(series.sop_instance_uids).encode()).hexdigest(),
        str(product),
        mappings_sha256(),
        repr((settings.content_date or RELEASE_DATE, settings.content_time, settings.seg_type)),
        *made_of,
    )
    return ObjectIdentity(derive_uid(*key, "series"), derive_uid(*key, "instance"), key)


def product_title(product: Product) -> str:
    """Start of the series description, as the product's kind gives it: ``3d_fullres-tta_nnU-Net``."""
    return segmenter_kind(product.kind).series_title(product)


def set_dates(dataset: Dataset, settings: EncodeSettings) -> None:
    """Content and creation dates from the settings or the release; never from the clock."""
    date = settings.content_date or RELEASE_DATE
    time = settings.content_time or "000000"
    if not _allowed("DA", date) or not _allowed("TM", time):
        raise EncodingError(Reason.ENCODING, "encode.content_date is YYYYMMDD and encode.content_time is HHMMSS")
    dataset.ContentDate = dataset.InstanceCreationDate = dataset.SeriesDate = date
    dataset.ContentTime = dataset.InstanceCreationTime = dataset.SeriesTime = time


def contributing_equipment(model: ModelInfo | None, extra: tuple[str, ...] = ()) -> list[Dataset]:
    """Contributing Equipment Sequence (PS3.3 C.12.1): this software, with versions, model, licence and citation."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(dicom_codes.DCM.ProcessingEquipment)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = MODEL_NAME
    item.SoftwareVersions = [__version__, *extra]
    facts = ["Research software, not a medical device."]
    if model is not None:
        facts.append(f"Model {model.name} {model.version}, weights SHA-256 {model.sha256}.")
        facts += [f"Licence: {model.licence}."] if model.licence else []
        facts += [f"Citation: {model.citation}"] if model.citation else []
        facts += ["Demonstration model."] if model.demo else []
    item.ContributionDescription = " ".join(facts)[:1024]
    return [item]


def code_item(code: Code | PydicomCode) -> Dataset:
    """Item of a code sequence (PS3.3 section 8.8)."""
    item = Dataset()
    value = code.value
    item.CodeValue = value
    item.CodingSchemeDesignator = code.scheme if isinstance(code, Code) else code.scheme_designator
    item.CodeMeaning = code.meaning[:64]
    return item


def coding_schemes(designators: set[str]) -> list[Dataset]:
    """Coding Scheme Identification Sequence (PS3.3 C.12.1) for schemes that need to be declared: ours and IBSI."""
    known: dict[str, dict[str, Any]] = {
        "99CTENRICH": {
            "CodingSchemeUID": derive_uid("coding scheme", "99CTENRICH"),
            "CodingSchemeName": "ctenrich: slice scores, landmark positions, 2D diameters",
            "CodingSchemeResponsibleOrganization": "ctenrich",
        },
        "IBSI": {
            "CodingSchemeUID": "1.2.840.10008.2.16.13",
            "CodingSchemeName": "Image Biomarker Standardisation Initiative",
            "CodingSchemeResponsibleOrganization": "IBSI",
        },
    }
    items = []
    for designator in sorted(designators & known.keys()):
        item = Dataset()
        item.CodingSchemeDesignator = designator
        for keyword, value in known[designator].items():
            setattr(item, keyword, value)
        items.append(item)
    return items


def set_character_set(dataset: Dataset) -> None:
    """ISO_IR 100 where the free texts fit into it (every reader knows it), else UTF-8.

    Free text comes from the source's patient and study, from a model's licence and citation, and from labels.
    """
    parts = [dataset, *dataset.get("ContributingEquipmentSequence", []), *dataset.get("SegmentSequence", [])]
    texts = [str(e.value) for part in parts for e in part if e.VR in {"PN", "LO", "LT", "SH", "ST", "UT", "UC"}]
    try:
        "".join(texts).encode("latin-1")
        dataset.SpecificCharacterSet = "ISO_IR 100"
    except UnicodeEncodeError:
        dataset.SpecificCharacterSet = "ISO_IR 192"
