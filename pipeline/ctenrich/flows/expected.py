"""Whether a case has the roles and modalities that a rule expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctenrich.errors import CtenrichError
from ctenrich.flows.closing import CloseRule
from ctenrich.flows.records import Role
from ctenrich.flows.triggers import TextFile, file_matches

__all__ = ["ModalityFile", "has_expected"]


@dataclass(frozen=True, kw_only=True)
class ModalityFile(TextFile):
    """A file whose texts and modality are known."""

    modality: str


def has_expected(all_roles: Sequence[Role], rule: CloseRule, files: Sequence[ModalityFile]) -> bool:
    """Return whether each role and modality that a rule expects is there, with as many series as are named.

    Parameters
    ----------
    all_roles : sequence of Role
        Roles of the flow.
    rule : CloseRule
        What is expected; a rule about time expects nothing.
    files : sequence of ModalityFile
        Files of the case.

    Returns
    -------
    bool
        False also if a pattern of a role takes too long.
    """
    roles = {role.name: role for role in all_roles}
    for name, number in Counter(rule.roles if rule.when == "expect" else ()).items():
        if name in roles:
            try:
                found = {one.series for one in files if any(file_matches(one, t) for t in roles[name].triggers)}
            except CtenrichError:
                return False
            needed = max(number, roles[name].series)
        else:
            needed = number
            found = {one.series for one in files if one.modality == name}
        if len(found) < needed:
            return False
    return True
