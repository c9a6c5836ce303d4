"""Take the name of an ROI apart: side, margin, qualifiers such as *old*, target, and the words that name a structure.

Words for sides are English, German, Dutch, French, Danish, Italian, Spanish and Latin. A name that states both sides in
words that exclude each other has no side: nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["ParsedName", "fold", "parse_name"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LEFT = _words(
    "l lt lft left links linke linker linkes lks li gauche gche gch sin sinister sinistra sinistre venstre izq "
    "izquierdo izquierda sx sinistro "
)
_RIGHT = _words(
    "r rt rgt right rechts rechte rechter rechtes re droit droite drt dex dext dexter dextra dextre hojre "
    "hoejre derecho derecha dx destra destro "
)
_LEFT_AT_END = frozenset({"g", "ve", "v"})
_RIGHT_AT_END = frozenset({"d", "dr", "dt", "ho", "hoe", "h"})
"""Letters that are sides only at the end of a name of several words: ``poumon g``, ``lunge h``."""
_NUMBERED = _words("level lvl cn nerve nerf nervus hals neck axilla segment vertebra vb station gruppe group ")
"""Words after which ``V`` is a number."""
_BOTH = _words("both bilat bilateral bilaterale bds beide beider beids beidseits beidseitig deux gesamt bil sum ")
_IPSILATERAL = _words("ipsi ipsilat ipsilateral ipsilaterale homolateral homolaterale omolaterale ")
_CONTRALATERAL = _words(
    "contra contralat contralateral contralaterale kontra kontralat kontralateral controlateral controlaterale "
    "heterolateral heterolaterale "
)
_QUALIFIERS = _words(
    "old alt vieux oud gammel new neu nouveau nieuw copy kopie kopi copie test tmp temp backup bkp orig original auto "
    "ai atlas mbs draft final edit edited corr korr ok check opt optim eval help hilfe help1 help2 ohne minus "
)
_NOISE = _words(
    "the of and und et de du la le les der die das van het en organ oar structure struct roi total tot ganz full vol "
    "contour kontur gl "
)
_TARGET = re.compile(r"^(?:e|z|opt)?[ _-]?(gtv|ctv|ptv|itv|igtv|ictv)")
_MARGIN = re.compile(r"(?:\bprv|\+)\s*(\d{1,2})?\s*(?:mm)?\b|\b(\d{1,2})\s*mm\b")
_WORD = re.compile(r"\b(?:th|[ctls])\d{1,2}\b|[a-z]+|\d+")
"""Vertebrae and numbered levels are words: L in ``L5`` is no side."""
_FRACTION = re.compile(r"\b(?:fx|fr)\s*\d+\b|\b\d+\s*(?:fx|fr)\b|\b\d+(?:\.\d+)?\s*gy\b|\bct\s*\d+\b")


@dataclass(frozen=True, kw_only=True)
class ParsedName:
    """What the words of a name state."""

    core: str
    """Words that name the structure, folded and joined by blanks."""
    side: str
    """L, R, B (both) or empty."""
    contradicts: bool = False
    """Whether it states left and right."""
    relative: str = ""
    """ipsilateral or contralateral, if it states one of them; empty otherwise."""
    margin: int | None = None
    """Planning margin, mm; 0 for a margin of unknown size; None without one."""
    qualifiers: tuple[str, ...] = ()
    """Words by which two ROIs of one structure differ: old, copy, fraction or image numbers."""
    target: str = ""
    """GTV, CTV, PTV or ITV; empty if it is no target."""
    subtracts: str = ""
    """Target that is subtracted, as in ``Lungs-PTV``; empty if there is none."""

    @property
    def is_plain(self) -> bool:
        """Whether it has no margin, no qualifier and no subtracted target."""
        return self.margin is None and not self.qualifiers and not self.subtracts


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """Return the letters and digits of a text in lower case, without accents."""
    return re.sub(r"[^a-z0-9]", "", _plain_letters(text))


def _plain_letters(text: str) -> str:
    replaced = text.replace("ß", "ss").replace("ø", "o").replace("Ø", "O").replace("æ", "ae").replace("Æ", "Ae")
    replaced = replaced.replace("œ", "oe").replace("Œ", "Oe")
    decomposed = unicodedata.normalize("NFKD", replaced)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def parse_name(name: str) -> ParsedName:
    """Take the name of an ROI apart.

    Parameters
    ----------
    name : str
        As the structure set has it.

    Returns
    -------
    ParsedName
    """
    spaced = re.sub(r"(?<=[a-zà-ÿ])(?=[A-Z])", " ", name)  # LungL, BowelBag
    text = _plain_letters(spaced).replace("_", " ")
    target = _TARGET.match(_plain_letters(name).strip())
    subtracts = re.search(r"[-\s](?:minus\s+|ohne\s+|sans\s+)?(gtv|ctv|ptv|itv)\w*\s*$", text) if not target else None
    if subtracts:
        text = text[: subtracts.start()]
    margin = None
    for match in _MARGIN.finditer(text):
        number = match[1] or match[2]
        margin = max(margin or 0, int(number) if number else 0)
    text = _MARGIN.sub(" ", text)
    qualifiers = [match[0].replace(" ", "") for match in _FRACTION.finditer(text)]
    text = _FRACTION.sub(" ", text)
    words = _WORD.findall(re.sub(r"(?<=[a-z])(?=prv)", " ", text))
    words, relative = _split_relative(words)
    core, left, right, both = _sort_words(words, qualifiers)
    return ParsedName(
        core=" ".join(core),
        side="" if left and right else "L" if left else "R" if right else "B" if both else "",
        contradicts=left and right,
        relative=relative,
        margin=margin,
        qualifiers=tuple(dict.fromkeys(qualifiers)),
        target=target[1].upper() if target else "",
        subtracts=subtracts[1].upper() if subtracts else "",
    )


def _split_relative(words: list[str]) -> tuple[list[str], str]:
    """Words without those for the treated side and the other one; which of the two they state, if only one."""
    stated = {
        side
        for side, known in (("ipsilateral", _IPSILATERAL), ("contralateral", _CONTRALATERAL))
        if not known.isdisjoint(words)
    }
    rest = [word for word in words if word not in _IPSILATERAL | _CONTRALATERAL]
    return rest, stated.pop() if len(stated) == 1 else ""


def _sort_words(words: list[str], qualifiers: list[str]) -> tuple[list[str], bool, bool, bool]:
    """Words of the structure; whether left, right and both sides are stated; qualifiers are added to the list."""
    core: list[str] = []
    left = right = both = False
    for place, word in enumerate(words):
        at_end = place == len(words) - 1 > 0 and words[place - 1] not in _NUMBERED
        if word in _LEFT or (at_end and word in _LEFT_AT_END):
            left = True
        elif word in _RIGHT or (at_end and word in _RIGHT_AT_END):
            right = True
        elif word in _BOTH:
            both = True
        elif word in _QUALIFIERS:
            qualifiers.append(word)
        elif word not in _NOISE or len(words) == 1:
            core.append(word)
    return core, left, right, both
