from __future__ import annotations

import numpy as np
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended

from ctenrich.dicom.codestream import encapsulated, fragments, single_frame
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

FRAME = np.random.default_rng(7).bytes(502)
END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("table", [True, False])
def test_a_frame_in_fragments_is_joined(count: int, table: bool) -> None:
    value = encapsulate([FRAME], fragments_per_frame=count, has_bot=table)
    parts = fragments(value, delimited=False)
    assert len(parts) == count
    assert b"".join(parts) == FRAME
    assert single_frame(value + END) == FRAME


def test_an_offset_table_that_is_wrong_is_not_used() -> None:
    value = bytearray(encapsulate([FRAME], fragments_per_frame=3, has_bot=True))
    value[8:12] = b"\x77\0\0\0"
    assert single_frame(bytes(value) + END) == FRAME


def test_an_empty_basic_table_beside_an_extended_one() -> None:
    value, _, _ = encapsulate_extended([FRAME])
    assert single_frame(value + END) == FRAME


def test_one_fragment_of_an_odd_number_of_bytes_is_padded() -> None:
    assert single_frame(encapsulated(FRAME[:-1])) == FRAME[:-1] + b"\0"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (encapsulate([FRAME], has_bot=False), Reason.TRUNCATED),
        ((encapsulate([FRAME], fragments_per_frame=3) + END)[:-60], Reason.TRUNCATED),
        (encapsulate([FRAME], has_bot=False)[:8] + END, Reason.TRUNCATED),
        (b"\x08\0\x18\0\4\0\0\0abcd" + END, Reason.DECODE_ERROR),
        (b"", Reason.TRUNCATED),
    ],
    ids=["no end", "cut off", "offset table only", "not an item", "empty"],
)
def test_damaged_items_are_reasons(value: bytes, reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        single_frame(value)
    assert caught.value.reason is reason
