"""Attributes that all objects share: patient and study, equipment, dates and deterministic UIDs.

Only the attributes in :data:`PATIENT_AND_STUDY` are copied from the source. Values that DICOM does not allow (an
invalid character, an age without unit) are repaired or dropped, each with a note; those of :data:`IDENTITY` are
refused.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydicom import config, dcmread, valuerep
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset

from ctenrich import RELEASE_DATE, __version__
from ctenrich.codes.mappings import CODES_REVISION, Code
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
    "IDENTITY",
    "MANUFACTURER",
    "PATIENT_AND_STUDY",
    "ObjectIdentity",
    "Source",
    "code_item",
    "coding_schemes",
    "content_description",
    "contributing_equipment",
    "identify",
    "product_title",
    "read_source",
    "series_description",
    "set_character_set",
    "set_dates",
]

_ENCODING = "encoding 2"
"""Raised when the encoders write other attributes for the same input, so that the UIDs are others too."""
DEMONSTRATION = "DEMONSTRATION"
"""Marks the objects of demonstration models."""
_LO = 64
"""Most characters of a value with the VR LO (PS3.5 6.2)."""

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
"""Type 2 attributes of the Patient and General Study modules: present, possibly empty (PS3.3 C.7.1.1, C.7.2.1)."""

OPTIONAL = (
    "IssuerOfPatientID",
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
IDENTITY = MappingProxyType(
    {
        "PatientID": "Patient ID",
        "IssuerOfPatientID": "Issuer of Patient ID",
        "StudyID": "Study ID",
        "AccessionNumber": "Accession Number",
    }
)
"""Attributes by which an archive files an object: an object without one of them would be filed elsewhere."""
ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
PATIENT_AND_STUDY = (*TYPE_2, *OPTIONAL, *CLINICAL_TRIAL)
"""The allow-list of attributes that are copied from the source."""


@dataclass(frozen=True)
class Source:
    """Patient and study attributes of the source series."""

    patient_and_study: Dataset
    """Attributes of the allow-list that have valid values."""
    issues: tuple[Issue, ...]
    """One note per value that was repaired or dropped."""


@dataclass(frozen=True)
class ObjectIdentity:
    """UIDs of one object, derived from its inputs."""

    series_instance_uid: str
    sop_instance_uid: str
    key: tuple[str, ...]

    def uid(self, *purpose: str) -> str:
        """Derive another UID of the object (dimension organization, tracking)."""
        return derive_uid(*self.key, *purpose)


# ---------------------------------------------------------------- source


def read_source(series: SortedSeries, workspace: Workspace) -> Source:
    """Read the patient and study attributes from the first slice's file and clean them; pixel data are not read.

    Parameters
    ----------
    series : SortedSeries
        The source series.
    workspace : Workspace
        Folder of the run, to which the paths of the slices are relative.

    Returns
    -------
    Source
        Valid attributes, and a note per value that was repaired or dropped.

    Raises
    ------
    EncodingError
        UNSAFE_IDENTIFIER: see :func:`clean_attributes`.
    """
    path = workspace.resolve(series.series_instance_uid, series.slices[0].path)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        header = dcmread(path, specific_tags=list(PATIENT_AND_STUDY), stop_before_pixels=True, force=True)
        clean, issues = clean_attributes(header, check_uid(series.slices[0].sop_instance_uid))
    return Source(clean, tuple(issues))


def clean_attributes(header: Dataset, subject: str) -> tuple[Dataset, list[Issue]]:
    """Return the allow-listed attributes of `header` that have valid values; Type 2 attributes are always present.

    Parameters
    ----------
    header : Dataset
        Any dataset; only attributes of the allow-list are read.
    subject : str
        SOP Instance UID that the notes refer to.

    Returns
    -------
    tuple of Dataset and list of Issue
        The attributes, and one note per value that was repaired or dropped.

    Raises
    ------
    EncodingError
        UNSAFE_IDENTIFIER for an attribute of :data:`IDENTITY` whose value is not valid (PS3.5 6.2).
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
        if value is None and keyword in IDENTITY:
            longest = {"LO": 64, "SH": 16}[dictionary_VR(keyword)]
            message = f"the {IDENTITY[keyword]} holds several values, more than {longest} characters or invalid ones"
            raise EncodingError(Reason.UNSAFE_IDENTIFIER, message, f"correct the {IDENTITY[keyword]} in the source")
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
    except Exception:  # noqa: BLE001 - the decoder of an invalid value may raise anything
        return "\ufffd"
    if value is None:
        return None
    if not isinstance(value, str) and hasattr(value, "__iter__") and dictionary_VR(keyword) != "PN":
        return "\\".join(str(part) for part in value) or None
    return str(value).strip(" \0") or None


def _valid(keyword: str, text: str) -> str | None:
    """Return the value if DICOM allows it, a repaired value if the intent is clear, None otherwise."""
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
    except Exception:  # noqa: BLE001 - the validator may raise anything
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
    """Keep conditional modules only if they are complete; drop them otherwise."""
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
    """Derive Series and SOP Instance UID of an object.

    They depend only on the source's UIDs and bytes, the product, the hashes in `made_of`, the revision of the codes,
    the settings of the encoder and its version.

    Parameters
    ----------
    kind : str
        Key of the object kind.
    series : SortedSeries
        The source series.
    product : Product
        The product that the object belongs to.
    settings : EncodeSettings
        Settings that change the bytes of the object.
    *made_of : str
        Hashes of the results that the object contains, and of codes newer than the first revision.

    Returns
    -------
    ObjectIdentity
        The same for the same input.
    """
    key = (
        kind,
        _ENCODING,
        __version__,
        check_uid(series.study_instance_uid),
        check_uid(series.series_instance_uid),
        series.source_sha256,
        hashlib.sha256("\n".join(series.sop_instance_uids).encode()).hexdigest(),
        str(product),
        CODES_REVISION,
        repr((settings.content_date or RELEASE_DATE, settings.content_time, settings.seg_type)),
        *made_of,
    )
    return ObjectIdentity(derive_uid(*key, "series"), derive_uid(*key, "instance"), key)


def product_title(product: Product) -> str:
    """Return the start of the series description, which the product's kind defines: ``3d_fullres-tta_nnU-Net``."""
    return segmenter_kind(product.kind).series_title(product)


def series_description(pattern: str, product: Product, model: ModelInfo | None, *, names_model: bool = True) -> str:
    """Return the Series Description of an object: the published pattern, the model, and DEMONSTRATION.

    Parameters
    ----------
    pattern : str
        Published pattern; ``{title}`` is the series title of the product's kind.
    product : Product
        The product.
    model : ModelInfo or None
        Its model; None for contours of an expert.
    names_model : bool
        Whether the model follows the pattern, if the title does not name it. False where the published queries compare
        the description by equality.

    Returns
    -------
    str
        At most 64 characters (LO); a name that is too long keeps its beginning and its end.
    """
    mark = " largest component" if product.largest_component else ""
    mark += f" {DEMONSTRATION}" if model is not None and model.demo else ""
    title = product_title(product)
    names = names_model and model is not None and product.model not in title
    text = pattern.format(title=_shortened(title, _LO - len(mark) - len(pattern.format(title=""))))
    room = _LO - len(mark) - len(text) - 1
    return text + (f" {_shortened(product.model, room)}" if names and room > 0 else "") + mark


def content_description(text: str, product: Product, model: ModelInfo | None) -> str:
    """Return the Content Description of an object: its content, the model, and DEMONSTRATION; 64 characters (LO).

    Parameters
    ----------
    text : str
        What the object contains.
    product : Product
        The product.
    model : ModelInfo or None
        Its model; None for contours of an expert.

    Returns
    -------
    str
    """
    if model is None:
        return text[:_LO]
    mark = f" {DEMONSTRATION}" if model.demo else ""
    begin = f"{text} by "
    return begin + _shortened(product.model, _LO - len(begin) - len(mark)) + mark


def _shortened(text: str, longest: int) -> str:
    """Return a text of at most `longest` characters, with its beginning and its end."""
    if len(text) <= longest:
        return text
    end = max(0, (longest - 2) // 3)
    return f"{text[: longest - 2 - end]}..{text[len(text) - end :]}" if longest > 4 else text[: max(0, longest)]


def set_dates(dataset: Dataset, settings: EncodeSettings) -> None:
    """Set content, creation and series date and time from the settings or the release date, never from the clock.

    Parameters
    ----------
    dataset : Dataset
        The object; changed in place.
    settings : EncodeSettings
        `content_date` (DA) and `content_time` (TM); empty: the date of the release, and midnight.

    Raises
    ------
    EncodingError
        ENCODING if date or time is not a valid DICOM value (PS3.5 6.2).
    """
    date = settings.content_date or RELEASE_DATE
    time = settings.content_time or "000000"
    if not _allowed("DA", date) or not _allowed("TM", time):
        raise EncodingError(Reason.ENCODING, "encode.content_date must be YYYYMMDD, encode.content_time HHMMSS")
    dataset.ContentDate = dataset.InstanceCreationDate = dataset.SeriesDate = date
    dataset.ContentTime = dataset.InstanceCreationTime = dataset.SeriesTime = time


def contributing_equipment(model: ModelInfo | None, extra: tuple[str, ...] = ()) -> list[Dataset]:
    """Build the Contributing Equipment Sequence (PS3.3 C.12.1): this software, the model, its licence and citation.

    Parameters
    ----------
    model : ModelInfo or None
        The model that made the result; None if there is none.
    extra : tuple of str
        Versions of further software, each as ``name version``.

    Returns
    -------
    list of Dataset
        One item.
    """
    item = Dataset()
    from pydicom.sr.codedict import codes as dicom_codes  # takes long to import, and sorting only reads headers

    item.PurposeOfReferenceCodeSequence = [code_item(dicom_codes.DCM.ProcessingEquipment)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = MODEL_NAME
    item.SoftwareVersions = [__version__, *extra]
    facts = ["Research software, not a medical device."]
    if model is not None:
        made = f"Model {model.name} {model.version}, weights"
        made = f"Masks by {model.name} {model.version or '(version not stated)'}, files" if model.of_files else made
        facts.append(f"{made} SHA-256 {model.sha256}.")
        facts += [f"Licence: {model.licence}."] if model.licence else []
        facts += [f"Citation: {model.citation}"] if model.citation else []
        facts += ["Demonstration model."] if model.demo else []
    item.ContributionDescription = " ".join(facts)[:1024]
    return [item]


def code_item(code: Code | PydicomCode) -> Dataset:
    """Build the item of a code sequence (PS3.3 section 8.8)."""
    item = Dataset()
    value = code.value
    item.CodeValue = value
    item.CodingSchemeDesignator = code.scheme if isinstance(code, Code) else code.scheme_designator
    item.CodeMeaning = code.meaning[:64]
    return item


def coding_schemes(designators: set[str]) -> list[Dataset]:
    """Build the Coding Scheme Identification Sequence (PS3.3 C.12.1) of 99CTENRICH and IBSI, where they are used."""
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
    """Set the Specific Character Set: ISO_IR 100 if all free text fits into it, UTF-8 (ISO_IR 192) otherwise.

    Free text comes from the source's patient and study, a model's licence and citation, and labels. Every reader knows
    ISO_IR 100.
    """
    parts = [dataset, *dataset.get("ContributingEquipmentSequence", []), *dataset.get("SegmentSequence", [])]
    texts = [str(e.value) for part in parts for e in part if e.VR in {"PN", "LO", "LT", "SH", "ST", "UT", "UC"}]
    try:
        "".join(texts).encode("latin-1")
        dataset.SpecificCharacterSet = "ISO_IR 100"
    except UnicodeEncodeError:
        dataset.SpecificCharacterSet = "ISO_IR 192"
