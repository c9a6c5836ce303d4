"""Keys, keyed replacements and shifted dates: laws over generated values, and files of keys."""

from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID

from ctenrich.errors import UsageError
from ctenrich.pseudonymise.dates import is_time, shift_date, shift_datetime
from ctenrich.pseudonymise.key import LARGEST_SHIFT, SMALLEST_SHIFT, Key, create_key, read_key
from ctenrich.reasons import Reason

KEY, OTHER = Key(secret=bytes(range(32))), Key(secret=bytes(32))
UIDS = st.from_regex(r"1\.[0-9]{1,3}(\.(0|[1-9][0-9]{0,8})){1,5}", fullmatch=True)
DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(UIDS, min_size=2, max_size=20, unique=True))
def test_uids_are_valid_keyed_and_different(originals: list[str]) -> None:
    mapped = [KEY.uid(uid) for uid in originals]
    assert len(set(mapped)) == len(originals)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in mapped)
    assert mapped == [Key(secret=bytes(range(32))).uid(uid) for uid in originals]
    assert not set(mapped) & {OTHER.uid(uid) for uid in originals}


def test_replacements_are_those_of_hmac_sha256() -> None:
    """Computed with openssl: printf of the framed parts | openssl dgst -sha256 -mac HMAC -macopt hexkey:00 x 32."""
    digest = bytes.fromhex(HMAC_OF_UID_1_2_3)
    number = int(digest[:16].hex(), 16)
    number = number & ~(0xF << 76) | 8 << 76
    assert OTHER.uid("1.2.3") == f"2.25.{number & ~(0x3 << 62) | 2 << 62}"


HMAC_OF_UID_1_2_3 = "8a948d7343c25aa63488effe8225afaeb2e912a34d78d17290b4c4b8b26c69b0"


@settings(max_examples=60, deadline=None)
@given(DAYS, DAYS, st.text("PX0123456789", min_size=1))
def test_shifts_keep_intervals(one: dt.date, two: dt.date, pseudonym: str) -> None:
    days = KEY.shift(pseudonym)
    assert SMALLEST_SHIFT <= -days <= LARGEST_SHIFT
    moved = [shift_date(f"{day:%Y%m%d}", days) for day in (one, two)]
    assert None not in moved
    parsed = [dt.datetime.strptime(str(text), "%Y%m%d").date() for text in moved]
    assert parsed[0] - parsed[1] == one - two
    assert parsed[0] == one + dt.timedelta(days=days)
    assert shift_datetime(f"{one:%Y%m%d}123059.25+0100", days) == f"{moved[0]}123059.25+0100"


def test_patients_have_different_shifts() -> None:
    assert len({KEY.shift(KEY.pseudonym(str(number))) for number in range(200)}) > 150


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("20200229", "20190301"), ("2020.02.29", "20190301"), ("20200230", None), ("Mueller", None), ("00010101", None),
        ("2020", None), ("20200101-20200201", None),
    ],
)  # fmt: skip
def test_dates(text: str, moved: str | None) -> None:
    assert shift_date(text, -365) == moved


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("20200301", "20190302"), ("202003", "201903"), ("2020", "2019"),
        ("20200301120000.123456", "20190302120000.123456"),
        ("2020030112", "2019030212"), ("20200301120000-0500", "20190302120000-0500"), ("20200301Meier", None),
    ],
)  # fmt: skip
def test_date_times(text: str, moved: str | None) -> None:
    assert shift_datetime(text, -365) == moved


def test_times() -> None:
    assert [is_time(text) for text in ("101112.123", "10", "10:11:12")] == [True] * 3
    assert [is_time(text) for text in ("Meier", "991112")] == [False] * 2


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key"
    create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = read_key(path)
    assert len(key.secret) == 32
    assert key.secret.hex() not in repr(key)
    with pytest.raises(UsageError) as error:
        create_key(path)
    assert error.value.reason is Reason.KEY_FILE
    assert read_key(path) == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(UsageError, match="KEY_FILE"):
        read_key(path)


@pytest.mark.parametrize("content", [b"", b"password", b"00" * 31, b"00" * 33, b"zz" * 32])
def test_other_files_are_no_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="holds no key"):
        read_key(path)


def test_a_link_or_a_folder_is_no_key(tmp_path: Path) -> None:
    create_key(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    for name in ("link", "none", "."):
        with pytest.raises(UsageError, match="KEY_FILE"):
            read_key(tmp_path / name)
