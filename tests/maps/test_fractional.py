"""Fractions of other programs as a FRACTIONAL segmentation: equal to half a step, with the right structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from tests.support.map_cases import SHAPE, grid_of_sources, make_source, save_nifti
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dicom.seg import read_seg
from ctenrich.errors import CtenrichError, InconsistencyError
from ctenrich.maps import write
from ctenrich.maps.fractional import FractionsDescription
from ctenrich.maps.source import open_source
from ctenrich.maps.write import FractionFile, WrittenMap, write_fractional
from ctenrich.reasons import Reason

LEFT = np.random.default_rng(5).random(SHAPE).astype(np.float32)
RIGHT = np.where(np.arange(SHAPE[0])[:, None, None] % 3 == 1, 1 - LEFT, 0.001).astype(np.float32)
"""On slice 1 only: 0.001 rounds to 0."""
HALF = 0.5 / 255 + 1e-6


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("fractions") / "ct", "ct")


def written(source: Path, out: Path, **arrays: Any) -> WrittenMap:
    files = []
    for name, array in arrays.items():
        path = save_nifti(out.with_name(f"{name}.nii"), array, grid_of_sources(source))
        files.append(FractionFile(path=path, name=name))
    described = FractionsDescription(kind="PROBABILITY", algorithm_type="AUTOMATIC", algorithm_name="net")
    return write_fractional(files, open_source(source), described, out)


def test_fractions_are_read_back_by_us_and_by_highdicom(ct: Path, tmp_path: Path) -> None:
    made = written(ct, tmp_path / "seg.dcm", lung_left=LEFT, lung_right=RIGHT)
    dataset = pydicom.dcmread(made.path)
    assert (dataset.SegmentationFractionalType, dataset.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert int(dataset.NumberOfFrames) == SHAPE[0] + 1
    source = open_source(ct).series
    ours = read_seg(made.path, source)
    assert [(s.label, s.type.meaning, s.laterality.meaning) for s in ours.segments if s.type and s.laterality] == [
        ("lung_left", "Lung", "Left"),
        ("lung_right", "Lung", "Right"),
    ]
    volume = hd.seg.segread(made.path).get_volume(combine_segments=False, allow_missing_positions=True)
    theirs = np.asarray(volume.array)[::-1]
    for number, array in enumerate((LEFT, RIGHT)):
        assert np.abs(ours.fraction(number + 1) - array).max() <= HALF
        assert np.abs(theirs[..., number] - array).max() <= HALF
    assert ours.issues == ()
    assert made.proof.passed


@pytest.mark.long
@pytest.mark.parametrize("form", ["mr", "pet", "enhanced_mr", "legacy"])
def test_sources_of_other_forms(form: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", form)
    made = written(source, tmp_path / "seg.dcm", liver=LEFT)
    assert np.abs(read_seg(made.path, open_source(source).series).fraction(1) - LEFT).max() <= HALF


def test_wrong_fractions_are_refused(ct: Path, tmp_path: Path) -> None:
    for array, reason, text in (
        (LEFT * 100, Reason.BAD_MAP, "fractions are 0 to 1"),
        (LEFT - 0.5, Reason.BAD_MAP, "fractions are 0 to 1"),
        (np.where(LEFT > 0.5, np.nan, LEFT), Reason.BAD_MAP, "NaN"),
        (LEFT * 0.001, Reason.EMPTY_SEGMENTATION, "below"),
        (LEFT[1:], Reason.OTHER_GRID, "5 x 6 x 3"),
    ):
        with pytest.raises(CtenrichError) as caught:
            written(ct, tmp_path / "seg.dcm", liver=array)
        assert (caught.value.reason, text in caught.value.message) == (reason, True), caught.value.message
    with pytest.raises(CtenrichError) as caught:
        written(ct, tmp_path / "seg.dcm", flux_capacitor=LEFT)
    assert caught.value.reason is Reason.UNMAPPED_LABEL
    assert not list(tmp_path.glob("*.dcm"))


def test_the_proof_finds_exchanged_segments_and_a_missing_frame(
    ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = write.fraction_planes
    monkeypatch.setattr(write, "fraction_planes", lambda parts: iter([*right(parts)][::-1]))
    with pytest.raises(InconsistencyError, match=r"seg\.fractions\.1"):
        written(ct, tmp_path / "seg.dcm", lung_left=LEFT, lung_right=1 - LEFT)
    monkeypatch.setattr(write, "fraction_planes", right)
    planned = write.planned_fractions

    def without_a_slice(parts: Any, names: Any) -> Any:
        from dataclasses import replace

        return tuple(replace(part, slices=part.slices[1:]) for part in planned(parts, names))

    monkeypatch.setattr(write, "planned_fractions", without_a_slice)
    with pytest.raises(InconsistencyError, match="voxels without a frame"):
        written(ct, tmp_path / "seg.dcm", liver=LEFT)
    assert not list(tmp_path.glob("*.dcm"))


@pytest.mark.long
def test_the_command(ct: Path, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "p.nii", LEFT, grid_of_sources(ct))
    common = ["maps", "fractional", "--source", str(ct), "--out", str(tmp_path / "seg.dcm"), "--algorithm", "net"]
    found = CliRunner().invoke(app, [*common, "--kind", "occupancy", f"liver={path}"])
    assert found.exit_code == 0, found.output
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentationFractionalType == "OCCUPANCY"
    for wrong in ("liver", f"liver={tmp_path / 'none.nii'}"):
        assert CliRunner().invoke(app, [*common, wrong]).exit_code == 2
    assert CliRunner().invoke(app, [*common, f"liver={path}", f"liver={path}"]).exit_code == 2
