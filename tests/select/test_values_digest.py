"""The hash of a cohort file's values depends on the values only, not on how Arrow stores them."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from ctenrich.select.values_digest import ValuesDigest, _bytes

COLUMNS = {
    "whole": pa.array([3, -1, 2**40, 0, 7] * 3),
    "small": pa.array([1, 2, 3, 4, 5] * 3, pa.int32()),
    "real": pa.array([0.5, -1.0, 2.25, 1e300, 0.0] * 3),
    "truth": pa.array([True, False, False, True, True] * 3),
    "day": pa.array([datetime.date(2026, 11, day) for day in range(1, 16)]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("part", [slice(0, 15), slice(3, 13), slice(9, 10), slice(4, 4)])
def test_bytes_are_those_of_numpys_array(name: str, part: slice) -> None:
    values = COLUMNS[name].slice(part.start, part.stop - part.start)
    assert _bytes(values) == values.to_numpy(zero_copy_only=False).tobytes()


@pytest.mark.parametrize(
    ("values", "filled"),
    [([None, 3, None, 5], [0, 3, 0, 5]), ([None, True, None], [False, True, False]), ([0.5, None], [0.5, 0.0])],
)
def test_null_has_the_bytes_of_zero(values: list[object], filled: list[object]) -> None:
    assert _bytes(pa.array(values)) == _bytes(pa.array(filled))
    assert _bytes(pa.nulls(3, pa.int64())) == bytes(24)


def test_a_part_of_a_table_has_the_hash_of_its_copy() -> None:
    rows = [{"uid": f"1.{n}", "parts": [{"n": n}] * (n % 3), "seen": None if n % 2 else True} for n in range(20)]
    whole = ValuesDigest(["uid", "parts", "seen"])
    whole.add(pa.Table.from_pylist(rows).slice(7, 9))
    copy = ValuesDigest(["uid", "parts", "seen"])
    copy.add(pa.Table.from_pylist(rows[7:16]))
    assert whole.hexdigest("") == copy.hexdigest("")
    changed = [*rows[7:15], {**rows[15], "seen": False}]
    other = ValuesDigest(["uid", "parts", "seen"])
    other.add(pa.Table.from_pylist(changed))
    assert other.hexdigest("") != copy.hexdigest("")
