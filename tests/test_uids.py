"""Derived identifiers: the same for the same parts, valid, different for anything else."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from ctenrich.uids import derive_uid


@given(st.lists(st.text(max_size=20), max_size=5))
def test_valid_and_repeatable(parts: list[str]) -> None:
    uid = derive_uid(*parts)
    assert uid == derive_uid(*parts)
    assert len(uid) <= 64
    number = int(uid.removeprefix("2.25."))
    assert str(number) == uid.removeprefix("2.25.")
    value = uuid.UUID(int=number)
    assert (value.version, value.variant) == (8, uuid.RFC_4122)


def test_parts_are_framed() -> None:
    assert (
        len({derive_uid("a", "bc"), derive_uid("ab", "c"), derive_uid("abc"), derive_uid("", "abc"), derive_uid()}) == 5
    )
    assert derive_uid("seg", "1.2.3") != derive_uid("seg", "1.2.4")
