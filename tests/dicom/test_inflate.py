"""Inflated copies: the same elements, nothing left behind, and files that are not deflated as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ctenrich.dicom import inflate
from ctenrich.dicom.inflate import inflated_copy
from ctenrich.errors import UnsafeInputError


def deflated(tmp_path: Path) -> Path:
    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "packed.dcm")
    return tmp_path / "packed.dcm"


def test_a_deflated_file_is_unpacked_for_the_block(tmp_path: Path) -> None:
    path = deflated(tmp_path)
    with inflated_copy(path) as copy:
        assert copy != path
        data = pydicom.dcmread(copy)
        assert data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert data.file_meta.FileMetaInformationGroupLength > 0
        whole = pydicom.dcmread(path)
        assert data == whole
        assert np.array_equal(data.pixel_array, whole.pixel_array)
    assert not copy.exists()


def test_other_files_are_given_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no DICOM")
    for path in (Path(str(get_testdata_file("CT_small.dcm"))), tmp_path / "note.txt"):
        with inflated_copy(path) as copy:
            assert copy == path


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "MAX_UNPACKED", 1000)
    with pytest.raises(UnsafeInputError), inflated_copy(deflated(tmp_path)):
        pass
