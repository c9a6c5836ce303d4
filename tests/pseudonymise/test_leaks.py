"""Identifiers planted everywhere are in no byte of the result."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom import config
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests.support.planted import NEEDLES, ROOT, planted_file

from ctenrich.pseudonymise.key import Key
from ctenrich.pseudonymise.object_file import Rules, pseudonymise_file
from ctenrich.pseudonymise.profile import Clean, Dates, Options, Retain
from ctenrich.pseudonymise.words import vocabulary

KEY = Key(secret=bytes(32))
EVERYTHING = frozenset({Retain.DEVICE, Retain.INSTITUTION, Retain.CHARACTERISTICS, Retain.SAFE_PRIVATE})


@pytest.fixture(autouse=True)
def _without_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "_writing_validation_mode", config.IGNORE)


def leaks(data: bytes) -> list[bytes]:
    lower = data.lower()
    return [needle for needle in NEEDLES if needle in lower]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        pytest.param(ImplicitVRLittleEndian, marks=pytest.mark.long),
        pytest.param(ExplicitVRBigEndian, marks=pytest.mark.long),
    ],
)
def test_planted_identifiers_are_gone(tmp_path: Path, syntax: str) -> None:
    source = planted_file(tmp_path / "planted.dcm", syntax=syntax)
    assert set(leaks(source.read_bytes())) == set(NEEDLES)
    rules = Rules(key=KEY, words=vocabulary())
    found = pseudonymise_file(source, tmp_path / "out", rules.subject("PAT4711X0815"), rules)
    result = tmp_path / "out" / found.path
    data = result.read_bytes()
    assert leaks(data) == []
    assert leaks(found.path.encode()) == []
    assert data[:132] == bytes(128) + b"DICM"
    assert leaks(str(found.counts).encode()) == []
    again = pydicom.dcmread(result)
    assert again.PatientID == again.PatientName == KEY.pseudonym("PAT4711X0815")
    assert again.file_meta.MediaStorageSOPInstanceUID == again.SOPInstanceUID == KEY.uid(f"{ROOT}.7")
    assert again.file_meta.TransferSyntaxUID == syntax
    assert "SourceApplicationEntityTitle" not in again.file_meta
    assert not [element for element in again.iterall() if element.tag.is_private]


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        Options(dates=Dates.REMOVE, clean=frozenset()),
        Options(
            dates=Dates.SHIFT, retain=frozenset({Retain.SAFE_PRIVATE, Retain.CHARACTERISTICS}), clean=frozenset(Clean)
        ),
    ],
    ids=["basic", "cleaned"],
)
def test_planted_identifiers_are_gone_under_options(tmp_path: Path, options: Options) -> None:
    source = planted_file(tmp_path / "planted.dcm", syntax=ExplicitVRLittleEndian)
    rules = Rules(key=KEY, options=options, words=vocabulary())
    found = pseudonymise_file(source, tmp_path / "out", rules.subject("PAT4711X0815"), rules)
    assert leaks((tmp_path / "out" / found.path).read_bytes()) == []
