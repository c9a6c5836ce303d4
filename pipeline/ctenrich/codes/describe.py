"""Describe labels of models with their codes, for listings: structure, code and side of every label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ctenrich.codes.mappings import Code, SegmentCode, codes_of, find_segment
from ctenrich.codes.tasks import task_classes

__all__ = ["ClassDescription", "describe_classes", "describe_task", "side_of"]

_GENERIC = ("DCM", "111099")


@dataclass(frozen=True, kw_only=True)
class ClassDescription:
    """One label of a model, in words."""

    number: int
    """Label number; the segment number in a SEG."""
    label: str
    """The model's name of the class."""
    segment: str
    """Row of segments.csv; empty if no row knows the label, or the class is auxiliary."""
    code: str
    """Segmented property type, e.g. ``SCT 64033007 Kidney``; empty without a row."""
    side: str
    """Laterality, also one that the concept contains: ``Left``, ``Right`` or empty."""
    region: str
    """Anatomic region, if the type is not itself a location; empty otherwise."""
    note: str
    """``auxiliary``, ``no code`` or ``generic`` (the concept says only where the structure is; the name says which)."""


def describe_classes(labels: Iterable[tuple[int, str]]) -> list[ClassDescription]:
    """Describe the labels of a model.

    Parameters
    ----------
    labels : iterable of (int, str)
        Label number and name, as in a model's dataset.json; the background may be among them and is left out.

    Returns
    -------
    list of ClassDescription
        In the order of the label numbers.
    """
    return [_describe(number, label, find_segment(label)) for number, label in sorted(labels) if number]


def describe_task(task: str) -> list[ClassDescription]:
    """Describe the classes of a published task, auxiliary ones included.

    Raises
    ------
    UsageError
        NOT_FOUND if no label table has the task.
    """
    return [
        _describe(item.label, item.class_name, codes_of(item.segment), "auxiliary" if item.auxiliary else "")
        for item in task_classes(task)
    ]


def _describe(number: int, label: str, code: SegmentCode | None, note: str = "") -> ClassDescription:
    if code is None:
        return ClassDescription(
            number=number, label=label, segment="", code="", side="", region="", note=note or "no code"
        )
    generic = (code.type.scheme, code.type.value) == _GENERIC
    return ClassDescription(
        number=number,
        label=label,
        segment=code.name,
        code=_code_text(code.type),
        side=side_of(code),
        region=_code_text(code.region) if code.region else "",
        note=note or ("generic" if generic else ""),
    )


def _code_text(code: Code) -> str:
    return f"{code.scheme} {code.value} {code.meaning}"


def side_of(code: SegmentCode) -> str:
    """Return the side of a structure, stated by a modifier or inside its concept: ``Left``, ``Right`` or empty."""
    for modifier in (code.laterality, code.region_modifier):
        if modifier:
            return modifier.meaning
    words = f"{code.type.meaning} {code.region.meaning if code.region else ''}".casefold().split()
    return next((side for side in ("Left", "Right") if side.casefold() in words), "")
