"""Identifiers of a phantom: derived from its options, never drawn and never from the clock."""

from __future__ import annotations

import dataclasses
import hashlib
from enum import Enum

from ctenrich.phantom.options import PhantomOptions

__all__ = ["Identity", "is_generated_study", "make_identity", "phantom_uid"]


def phantom_uid(*parts: str) -> str:
    """UID of the 2.25 branch (PS3.5 annex B.2) from a hash of `parts`."""
    digest = hashlib.sha256("\x1f".join(("ctenrich phantom 1", *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


@dataclasses.dataclass(frozen=True)
class Identity:
    """The UIDs of one series."""

    patient_id: str
    study: str
    series: str
    frame_of_reference: str
    key: str
    """All options in a fixed order; the UIDs of the series are hashes of it."""

    def instance(self, *what: str) -> str:
        """SOP Instance UID of one object of the series, derived from words that name it."""
        return phantom_uid(self.key, *what)


def make_identity(options: PhantomOptions) -> Identity:
    """Derive the identifiers of a series from its options."""
    patient = options.patient_id or f"PHANTOM-{options.seed}"
    key = repr([(f.name, _option_value(getattr(options, f.name))) for f in dataclasses.fields(options)])
    study = phantom_uid("study", patient, options.study)
    frame = phantom_uid("frame of reference", patient, options.study)
    return Identity(patient, study, phantom_uid("series", key), frame, key)


def is_generated_study(study_instance_uid: str, patient_id: str, study_id: str = PhantomOptions.study) -> bool:
    """Return whether a Study Instance UID is the one that the generator derives from Patient ID and Study ID.

    Such a UID is a hash (2.25 branch) of both, which no scanner and no de-identification writes.

    Parameters
    ----------
    study_instance_uid : str
        Study Instance UID.
    patient_id : str
        Patient ID.
    study_id : str
        Study ID; by default that of all options which do not state another.

    Returns
    -------
    bool
    """
    return study_instance_uid == phantom_uid("study", patient_id, study_id)


def _option_value(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(str(v) for v in value)
    return str(value.value) if isinstance(value, Enum) else value
