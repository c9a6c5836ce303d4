"""Read the identities of all files of a folder, and find out which patient each file belongs to."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ctenrich.dicom.objects import claims_to_be_dicom
from ctenrich.dicom.other_files import kind_of_other_file
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.sop_classes import MEDIA_STORAGE_DIRECTORY
from ctenrich.dicom.values import text
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason

__all__ = ["FileIdentity", "Refusal", "find_refusals", "read_identity", "read_pseudonyms"]

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "SpecificCharacterSet",
)  # fmt: skip
_NAMELESS = frozenset({"", "anon", "anonymous", "anonymized", "anonymised", "unknown", "none", "removed", "no name"})
_PSEUDONYM = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class FileIdentity:
    """Whose object a file is."""

    path: Path
    size: int
    changed: int
    """Time of the last change, ns."""
    patient_id: str
    issuer: str
    name: frozenset[str]
    """Parts of the name in plain lower case letters."""
    birth_date: str
    """Empty where it is not known."""
    sex: str
    study: str
    sop: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a file is refused."""

    reason: Reason
    detail: str
    hint: str = ""


def read_identity(path: Path) -> FileIdentity | Refusal | None:
    """Read what identifies patient and object of a file.

    Returns
    -------
    FileIdentity, Refusal or None
        None for a file that is no DICOM object, and for a DICOMDIR.
    """
    try:
        if kind_of_other_file(path) is not None and not claims_to_be_dicom(path):
            return None
        with open_dicom(path, tags=_TAGS) as parsed:
            data = parsed.dataset
            if MEDIA_STORAGE_DIRECTORY in (text(data, "SOPClassUID"), text(data.file_meta, "MediaStorageSOPClassUID")):
                return None
            status = path.stat()
            birth = text(data, "PatientBirthDate")
            patient = text(data, "PatientID")
            name = str(data.get("PatientName") or "")
            return FileIdentity(
                path=path,
                size=status.st_size,
                changed=status.st_mtime_ns,
                patient_id=patient,
                issuer=text(data, "IssuerOfPatientID"),
                name=_name_parts(name) if name.strip() != patient else frozenset(),
                birth_date=birth if re.fullmatch(r"[0-9]{8}", birth) and birth > "19010101" else "",
                sex=text(data, "PatientSex").upper().replace("O", ""),
                study=text(data, "StudyInstanceUID"),
                sop=text(data, "SOPInstanceUID"),
            )
    except InputError as error:
        if error.reason is Reason.NOT_DICOM and not claims_to_be_dicom(path):
            return None
        return Refusal(reason=error.reason, detail=error.message)
    except OSError as error:
        return Refusal(reason=Reason.IO_ERROR, detail=f"the file cannot be read: {error.strerror}")


def _name_parts(name: str) -> frozenset[str]:
    """Parts of a name in any order; none for a name that names no one."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    if " ".join(re.split(r"[\^=\s]+", plain)).strip() in _NAMELESS:
        return frozenset()
    return frozenset(part for part in re.split(r"[\W_]+", plain) if part)


def read_pseudonyms(content: str) -> Mapping[str, str]:
    """Read a table of chosen pseudonyms.

    Parameters
    ----------
    content : str
        CSV with the columns patient_id and pseudonym. Several IDs of one patient have the same pseudonym.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another table, and for a pseudonym that is the Patient ID of someone or cannot name a folder.
    """
    rows = list(csv.DictReader(io.StringIO(content)))
    if not rows or not {"patient_id", "pseudonym"} <= set(rows[0]):
        raise UsageError(Reason.BAD_PARAMETER, "the table of pseudonyms has no columns patient_id and pseudonym")
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        patient, pseudonym = ((row[name] or "").strip() for name in ("patient_id", "pseudonym"))
        if not patient or _PSEUDONYM.fullmatch(pseudonym) is None or found.get(patient, pseudonym) != pseudonym:
            message = f"line {number} of the table of pseudonyms is wrong"
            hint = "each Patient ID once, with a pseudonym of at most 64 letters, digits, _ . or -"
            raise UsageError(Reason.BAD_PARAMETER, message, hint)
        found[patient] = pseudonym
    if set(found) & set(found.values()):
        raise UsageError(Reason.BAD_PARAMETER, "a pseudonym of the table is also a Patient ID")
    return found


def find_refusals(files: Sequence[FileIdentity], pseudonyms: Mapping[str, str]) -> Mapping[Path, Refusal]:
    """Find the files whose patient is not certain, and copies of objects that differ.

    Parameters
    ----------
    files : sequence of FileIdentity
        All files of the folder.
    pseudonyms : mapping
        Patient ID -> chosen pseudonym: a person has stated which IDs belong together.

    Returns
    -------
    mapping
        Path -> refusal. Equal copies are not among them.
    """
    found: dict[Path, Refusal] = {}
    for one in files:
        if not one.patient_id:
            found[one.path] = Refusal(reason=Reason.NO_PATIENT_ID, detail="Patient ID is missing or empty")
        elif not one.sop or not one.study:
            found[one.path] = Refusal(reason=Reason.UNSAFE_IDENTIFIER, detail="a UID is missing")
    ids = defaultdict(list)
    for one in files:
        ids[one.patient_id].append(one)
    two_in_one = {patient for patient, own in ids.items() if patient and not _is_one_patient(own)}
    one_in_two = _split_patients(files, pseudonyms)
    detail = "objects under this Patient ID differ in name, birth date, sex or issuer"
    split = "objects of this patient have another Patient ID too"
    source, hint = "correct the IDs at the source", "state the pseudonym of each Patient ID with --pseudonyms"
    for one in files:
        if one.patient_id in two_in_one:
            found[one.path] = Refusal(reason=Reason.AMBIGUOUS_PATIENT, detail=detail, hint=source)
        elif one.patient_id in one_in_two:
            found.setdefault(one.path, Refusal(reason=Reason.AMBIGUOUS_PATIENT, detail=split, hint=hint))
    return found | _conflicting_copies(files)


def _is_one_patient(files: Iterable[FileIdentity]) -> bool:
    kinds = {(one.name, one.birth_date, one.sex, one.issuer) for one in files}
    births, sexes, issuers = ({kind[n] for kind in kinds if kind[n]} for n in (1, 2, 3))
    if max(len(births), len(sexes), len(issuers)) > 1:
        return False
    names = {kind[0] for kind in kinds if kind[0]}
    return all(a <= b or b <= a or (births and a & b) for a, b in combinations(names, 2))


def _split_patients(files: Iterable[FileIdentity], pseudonyms: Mapping[str, str]) -> set[str]:
    """Patient IDs that share a study, or a name and a birth date, with another one, unless a person stated both."""
    groups: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for one in files:
        if one.patient_id:
            groups["study", one.study].add(one.patient_id)
            if one.birth_date and one.name:
                groups["person", one.name, one.birth_date].add(one.patient_id)
    found: set[str] = set()
    for (kind, *_), ids in groups.items():
        stated = all(patient in pseudonyms for patient in ids)
        same = len({pseudonyms.get(patient, patient) for patient in ids}) == 1
        if len(ids) > 1 and not (same if kind == "study" else stated):
            found |= ids
    return found


def _conflicting_copies(files: Iterable[FileIdentity]) -> dict[Path, Refusal]:
    groups = defaultdict(list)
    for one in files:
        groups[one.sop].append(one)
    found = {}
    for sop, copies in groups.items():
        if not sop or len(copies) == 1:
            continue
        if len({one.size for one in copies}) > 1 or len({_digest(one.path) for one in copies}) > 1:
            detail = "another file with the same SOP Instance UID has other content"
            found.update({one.path: Refusal(reason=Reason.CONFLICTING_DUPLICATE, detail=detail) for one in copies})
    return found


def _digest(path: Path) -> bytes:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
