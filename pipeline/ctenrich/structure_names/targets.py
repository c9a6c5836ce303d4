"""Rules of TG-263 for the names of targets: type, classifier, number, dose, and what may follow."""

from __future__ import annotations

import re

__all__ = ["check_target", "is_target"]

_TARGET = re.compile(
    r"(?P<type>GTV|CTV|ITV|IGTV|ICTV|PTV|PTV!)"
    r"(?P<class>[npsvpar]|sb|par|vas)?"
    r"(?P<number>\d{0,2})"
    r"(?:_(?P<modality>CT|PT|MR|SP)\d*)?"
    r"(?:_(?P<what>[A-Z][A-Za-z]+(?:_[LR])?))?"
    r"(?:_(?P<dose>High|Mid|Mid\d\d|Low|\d{3,5}|\d+(?:p\d+)?Gy|\d{3,5}x\d+))?"
    r"(?:-(?P<crop>\d{2}))?"
    r"(?:\^[A-Za-z0-9]+)?"
)
_LONGEST = 16


def is_target(name: str) -> bool:
    """Whether a name begins as that of a target, in capitals or not."""
    return re.match(r"(?i)i?(gtv|ctv|ptv)|itv", name) is not None


def check_target(name: str) -> str:
    """Return what is wrong with the name of a target; empty if it follows TG-263.

    Parameters
    ----------
    name : str
        E.g. ``PTV_5000``, ``GTVp1``, ``CTVn_High``, ``PTV1_Liver_2000x3``.
    """
    if len(name) > _LONGEST:
        return f"longer than {_LONGEST} letters"
    if " " in name:
        return "it contains a blank"
    head = re.match(r"(?i)(igtv|ictv|gtv|ctv|itv|ptv)", name)
    if head is None:
        return "it does not begin with GTV, CTV, ITV or PTV"
    if not head[0].isupper():
        return f"{head[0].upper()} is written in capitals"
    if re.match(r"(?:IGTV|ICTV|GTV|CTV|ITV|PTV)[-_ ]\d{1,2}$", name):
        return f"a number follows the type directly: {re.sub(r'[-_ ]', '', name)}"
    if _TARGET.fullmatch(name) is None:
        return "its parts are type, classifier, number, structure and dose, in this order, e.g. PTVp1_5000"
    return ""
