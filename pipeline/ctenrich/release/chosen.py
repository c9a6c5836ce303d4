"""Which products and objects of a run are released, in a few bytes for each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChosenProducts", "ObjectUids", "ProductFact"]


class ProductFact(IntFlag):
    """What the tables state about a product of a series."""

    DONE = 1
    CHECKED = 2
    """A check of its proof is there."""
    FAILED = 4
    """A check of its proof failed."""
    HAS_OBJECTS = 8


_BITS = len(ProductFact)


class ChosenProducts:
    """Facts about the products of series: an integer for each series, with some bits for each product."""

    def __init__(self) -> None:
        self._facts: dict[str, int] = {}
        self._places: dict[str, int] = {}

    def add(self, series: str, product: str, fact: ProductFact) -> None:
        """Note a fact about a product.

        Parameters
        ----------
        series : str
            Series Instance UID.
        product : str
            Key of the product.
        fact : ProductFact
            What holds for it, beside what was noted before.
        """
        place = self._places.setdefault(product, _BITS * len(self._places))
        self._facts[series] = self._facts.get(series, 0) | fact << place

    def of(self, series: str, product: str) -> ProductFact:
        """Facts that were noted about a product; none for one that is not known."""
        place = self._places.get(product)
        return ProductFact(0 if place is None else self._facts.get(series, 0) >> place & (1 << _BITS) - 1)

    def is_proven(self, series: str, product: str) -> bool:
        """Whether a product is done, and every check of its proof passed."""
        needed = ProductFact.DONE | ProductFact.CHECKED
        return self.of(series, product) & (needed | ProductFact.FAILED) == needed

    def with_objects(self, series: str) -> list[str]:
        """Keys of the products of a series that have objects, sorted."""
        return sorted(name for name in self._places if ProductFact.HAS_OBJECTS in self.of(series, name))

    def series(self) -> Iterator[str]:
        """Series of which a product has objects, sorted by UID."""
        return (uid for uid in sorted(self._facts) if self.with_objects(uid))


class ObjectUids:
    """SOP Instance UIDs, 16 bytes for each: their BLAKE2b hashes of 128 bits, sorted.

    Parameters
    ----------
    uids : iterable of str
        The UIDs; read once.
    count : int
        Their number.
    """

    def __init__(self, uids: Iterable[str], count: int) -> None:
        self._hashes = _hashes(uids, count)
        self._hashes.sort()

    def contain(self, uids: Collection[str | None]) -> NDArray[np.bool_]:
        """Return for each UID whether it is one of these, shape (len(uids),); None is not."""
        if not len(self._hashes):
            return np.zeros(len(uids), np.bool_)
        wanted = _hashes((uid or "" for uid in uids), len(uids))
        places = np.searchsorted(self._hashes, wanted)
        found: NDArray[np.bool_] = self._hashes[np.minimum(places, len(self._hashes) - 1)] == wanted
        return found


_PAIR = np.dtype([("high", ">u8"), ("low", ">u8")])


def _hashes(uids: Iterable[str], count: int) -> NDArray[Any]:
    found = bytearray()
    for uid in uids:
        found += hashlib.blake2b(uid.encode(), digest_size=_PAIR.itemsize).digest()
    assert len(found) == count * _PAIR.itemsize
    return np.frombuffer(found, _PAIR).copy()
