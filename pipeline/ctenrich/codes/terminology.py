"""Check codes without a terminology server, by check digits, grammars and DICOM's own dictionaries."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import cache

__all__ = ["code_fault", "dictionary_meanings", "nearest_code", "ucum_fault", "verhoeff_valid"]

# Verhoeff's scheme (J. Verhoeff, Error Detecting Decimal Codes, 1969), as SNOMED CT uses it for its identifiers:
# multiplication in the dihedral group D5, and powers of one permutation by position from the right.
_TIMES = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_SHIFT = "1576283094"


@cache
def _permutations() -> tuple[tuple[int, ...], ...]:
    powers = [tuple(range(10))]
    for _ in range(7):
        powers.append(tuple(int(_SHIFT[digit]) for digit in powers[-1]))
    return tuple(powers)


def verhoeff_valid(digits: str) -> bool:
    """Whether the last digit of `digits` is the Verhoeff check digit of the others.

    Examples
    --------
    >>> verhoeff_valid("80891009"), verhoeff_valid("80891008")
    (True, False)
    """
    state = 0
    for position, digit in enumerate(reversed(digits)):
        state = int(_TIMES[state][_permutations()[position % 8][int(digit)]])
    return state == 0


def code_fault(scheme: str, value: str) -> str:
    """Describe why a code value is impossible in its scheme.

    SNOMED CT identifiers have 6 to 18 digits and a Verhoeff check digit; UCUM codes follow its grammar; IBSI codes have
    four capital letters or digits; other schemes are checked only for DICOM's length (SH, 16 characters).

    Parameters
    ----------
    scheme : str
        Coding Scheme Designator.
    value : str
        Code value.

    Returns
    -------
    str
        Empty if the value is possible.
    """
    if scheme == "SCT":
        if re.fullmatch(r"[1-9][0-9]{5,17}", value) is None:
            return f"{value!r} is not a SNOMED CT identifier"
        if not verhoeff_valid(value):
            return f"{value} fails SNOMED CT's check digit"
        return ""
    if scheme == "UCUM":
        return ucum_fault(value)
    if scheme == "IBSI":
        return "" if re.fullmatch(r"[0-9A-Z]{4}", value) else f"{value!r} is not an IBSI identifier"
    if not value or len(value) > 16 or value != value.strip():
        return f"{value!r} is not a code value of 1 to 16 characters"
    return ""


_PREFIX = "Y|Z|E|P|T|G|M|k|h|da|d|c|m|u|n|p|f|a|z|y"
_METRIC = (
    r"m|s|g|rad|K|C|cd|l|L|mol|sr|Hz|N|Pa|J|W|A|V|F|Ohm|S|Wb|Cel|T|H|lm|lx|Bq|Gy|Sv|eV|u|pc|bar|B|m\[Hg\]|\[arb'U\]"
)
_PLAIN = (
    r"min|h|d|wk|mo|a|deg|'|''|%|ppm|diop|atm|dB"
    r"|\[ppth\]|\[hnsf'U\]|\[Ch\]|\[in_i\]|\[ft_i\]|\[mi_i\]|\[PRU\]|\[wood'U\]"
)
_NUMBER = r"10\*-?[0-9]+|10\^-?[0-9]+|\[?[0-9]+\]?"
_ATOM = rf"(?:(?:(?:{_PREFIX})?(?:{_METRIC})|{_PLAIN})(?:[+-]?[1-9])?|{_NUMBER})(?:\{{[ -z|~]*\}})?|\{{[ -z|~]+\}}"
_UCUM = re.compile(rf"/?(?:{_ATOM})(?:[./](?:{_ATOM}))*")


def ucum_fault(value: str) -> str:
    """Describe why a unit does not follow the grammar of UCUM (case-sensitive form); empty if it does.

    The terminal symbols are those that imaging uses (lengths, times, masses, activity, dose, Hounsfield units, ...).
    """
    if value and (_UCUM.fullmatch(value) or value in dictionary_meanings("UCUM")):
        return ""  # DICOM's own list has a few units that the grammar does not allow
    return f"{value!r} is not a UCUM unit"


@cache
def dictionary_meanings(scheme: str) -> dict[str, tuple[str, ...]]:
    """Code value -> meanings, from pydicom's dictionary of the concepts of DICOM PS3.16, which highdicom uses too."""
    from pydicom.sr._concepts_dict import concepts

    out: dict[str, list[str]] = {}
    entries: dict[str, dict[str, tuple[str, list[int]]]] = {}
    entries.update(concepts.get(scheme, {}))  # type: ignore[arg-type]
    for entry in entries.values():
        for value, (meaning, _groups) in entry.items():
            out.setdefault(value, []).append(meaning)
    return {value: tuple(dict.fromkeys(meanings)) for value, meanings in out.items()}


def nearest_code(scheme: str, value: str, meaning: str, known: dict[str, tuple[str, ...]]) -> str:
    """Find the valid code that a wrong value was probably meant to be.

    Among codes whose meaning agrees, the one with the fewest different characters (at most 3); without such a meaning,
    any valid code with one different character.

    Parameters
    ----------
    scheme : str
        Coding Scheme Designator.
    value : str
        The wrong value.
    meaning : str
        Its meaning.
    known : dict
        Code value -> meanings of the scheme.

    Returns
    -------
    str
        Empty if no code is near.
    """
    wanted = plain_meaning(meaning)
    best, best_distance = "", 4
    for other, meanings in known.items():
        agrees = wanted in {plain_meaning(m) for m in meanings}
        limit = best_distance if agrees else min(best_distance, 2)
        if abs(len(other) - len(value)) >= limit or code_fault(scheme, other):
            continue
        distance = edit_count(value, other)
        if distance < limit:
            best, best_distance = other, distance
    return best


def plain_meaning(meaning: str) -> str:
    """Normalise a meaning for comparison: lower case, without SNOMED's tag and words like ``structure`` and ``of``."""
    text = re.sub(r"\([^)]*\)\s*$", "", meaning.casefold())
    words = [w for w in re.findall(r"[a-z0-9]+", text) if w not in {"structure", "of", "part", "bone", "entire", "the"}]
    return " ".join(words)


def edit_count(a: str, b: str) -> int:
    """Characters that differ between two codes, by the longest common blocks of `difflib`."""
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return sum(max(a_end - a_at, b_end - b_at) for kind, a_at, a_end, b_at, b_end in blocks if kind != "equal")
