"""A column of a result table, and the columns and texts that several tables have in common."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CT", "PATIENT_OF_CT", "PRODUCT", "SERIES", "SIDES", "STANDARD_NAME", "Column", "idc_column"]


@dataclass(frozen=True)
class Column:
    """One column: its type in the short names of `_TYPES`, and what it means."""

    name: str
    type: str
    text: str
    strict: bool = False
    """Whether IDC's own view has it (then it keeps IDC's position)."""


CT = "Series Instance UID of the CT, which joins the table series"


def idc_column(name: str, kind: str, text: str) -> Column:
    """Return a column of IDC's own view.

    Parameters
    ----------
    name : str
        IDC's name.
    kind : str
        Type, as in :class:`Column`.
    text : str
        What it means.
    """
    return Column(name, kind, text, strict=True)


SERIES = "Series Instance UID of the CT"
PRODUCT = (
    "What made it: expert, nnunet:MODEL:CONFIGURATION:FOLDS:MIRROR[:axes=AXES][:step=STEP][:largest=on], "
    "bodypart:MODEL, or the kind and name of another segmenter, e.g. totalsegmentator:total-fast, moose:clin_ct_organs"
)
PATIENT_OF_CT = Column("PatientID", "string", "Patient ID; NULL for series that are not in the cohort file")
STANDARD_NAME = Column("standard_name", "string", "Name of TG-263, with qualifier or margin; NULL if it has none")
SIDES = (
    Column("laterality", "string", "Left, Right or NULL; of Lung^Ipsi and the like by the treated side of the series"),
    Column("relative_side", "string", "ipsilateral or contralateral to the treated side; NULL if that is not known"),
)
