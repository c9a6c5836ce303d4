"""Clean free text: words of a vocabulary and short numbers stay, all other words become keyed tokens."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files

from ctenrich.pseudonymise.key import Key
from ctenrich.resources import folder

__all__ = ["TextCleaner", "read_words", "vocabulary"]

_RUN = re.compile(r"[^\W_]+")
_WORD = re.compile(r"[^\W\d_]+")
_PIECES = re.compile(r"[A-ZÄÖÜ]?[^\W\d_A-ZÄÖÜ]+|[A-ZÄÖÜ]+(?![^\W\d_A-ZÄÖÜ])")
_CHUNKS = re.compile(r"\d+|[^\W\d_]+")
_NUMBERS = re.compile(
    r"\d+(?:\.\d+){2,}"  # UIDs, dates with points
    r"|\d{1,4}[/-]\d{1,2}[/-]\d{1,4}"  # dates
    r"|\d+(?:[^\w]{1,2}\d+|_\d+){2,}"  # telephone numbers
)
_DECIMAL = re.compile(r"(?<![\w.])\d{1,3}[.,]\d{1,6}(?![\w.,])")
_MOST_DIGITS = 3
_LONGEST = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "ST": 1024, "LT": 10240}


@cache
def vocabulary() -> frozenset[str]:
    """Words that identify no person: of words.txt, and of the names of structures in the mappings."""
    texts = [line for line in (files(__package__) / "words.txt").read_text("utf-8").splitlines() if line[:1] != "#"]
    for name in ("structures", "segments", "landmarks", "regions", "parts"):
        with (folder("mappings") / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                texts += [value for column, value in row.items() if _names_structures(column) and value]
    return frozenset(_words(texts))


def _names_structures(column: str) -> bool:
    return column in {"name", "base", "labels", "synonyms", "label"} or column.endswith("_meaning")


def read_words(text: str) -> frozenset[str]:
    """Read words that a user adds to the vocabulary; lines that begin with # are comments."""
    return frozenset(_words(line for line in text.splitlines() if not line.startswith("#")))


def _words(texts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        for run in _RUN.findall(text):
            found.update(word.casefold() for word in (run, *_WORD.findall(run), *_PIECES.findall(run)))
    found |= {_plain(word) for word in found}
    return {word for word in found if len(word) > 1 and not word.isdigit()}


def _plain(word: str) -> str:
    """A word without diacritics."""
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


class TextCleaner:
    """Cleans texts, and remembers the words that it replaced.

    Parameters
    ----------
    key : Key
        Makes the tokens: one word has one token, so that names stay different from one another.
    words : frozenset of str
        Words to keep, in lower case.
    """

    def __init__(self, key: Key, words: frozenset[str]) -> None:
        self.key = key
        self.words = words
        self.replaced: Counter[str] = Counter()

    def clean(self, text: str, vr: str, hide: Callable[[str], str] = str) -> str:
        """Return a text in which words that are not in the vocabulary are tokens.

        Parameters
        ----------
        text : str
            One value.
        vr : str
            Value representation; a result that is longer than it allows is cut.
        hide : callable
            Replaces identifiers that were found elsewhere in the file, before the words are judged.
        """
        out = _NUMBERS.sub(self._long_number, hide(text))
        places = [match.span() for match in _DECIMAL.finditer(out)]
        parts, end = [], 0
        for match in _RUN.finditer(out):
            parts.append(out[end : match.start()])
            end = match.end()
            inside = any(start <= match.start() and end <= stop for start, stop in places)
            parts.append(match[0] if inside or self._is_known(match[0]) else self.token(match[0]))
        out = "".join((*parts, out[end:]))
        longest = _LONGEST.get(vr)
        return out if longest is None or len(out) <= max(longest, 1) else out[:longest].rstrip()

    def token(self, word: str) -> str:
        """Token for a word; it is counted."""
        self.replaced[word] += 1
        return self.key.token(word)

    def _long_number(self, match: re.Match[str]) -> str:
        digits = sum(c.isdigit() for c in match[0])
        return self.token(match[0]) if digits >= 6 or match[0].count(".") > 1 else match[0]

    def _is_known(self, run: str) -> bool:
        word = run.casefold()
        if len(run) == 1 or word in self.words or _IS_TOKEN.fullmatch(run):
            return True
        if run.isdigit():
            return len(run) <= _MOST_DIGITS
        chunks = _CHUNKS.findall(run)
        if len(chunks) > 1:
            digits = sum(len(chunk) for chunk in chunks if chunk.isdigit())
            others = [c for c in chunks if not c.isdigit() and not self._is_word(c)]
            return digits <= _MOST_DIGITS and sum(map(len, others)) <= _MOST_DIGITS
        return self._is_word(run)

    def _is_word(self, run: str) -> bool:
        """Whether letters are a word of the vocabulary, several in CamelCase, or one beside a single letter."""
        word = _plain(run.casefold())
        if word in self.words or word[:-1] in self.words or word[1:] in self.words:
            return True
        pieces = _PIECES.findall(run)
        return len(pieces) > 1 and all(len(piece) == 1 or piece.casefold() in self.words for piece in pieces)


_IS_TOKEN = re.compile(r"x[a-z2-7]{5}")
