"""Maps of other programs as Parametric Maps: equal when read by us, highdicom and dcmqi; wrong ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from tests.support.map_cases import MULTI_FRAME, SHAPE, SINGLE_FRAME, grid_of_sources, make_source, save_nifti
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dicom.parametric_map import read_map
from ctenrich.errors import CtenrichError, InconsistencyError
from ctenrich.maps import write
from ctenrich.maps.parametric_map import MapDescription
from ctenrich.maps.quantity import find_quantity
from ctenrich.maps.source import open_source
from ctenrich.maps.write import MapFile, WrittenMap, write_parametric_map
from ctenrich.reasons import Reason
from ctenrich.tools import find_tool, run_tool

VALUES = np.random.default_rng(4).random(SHAPE)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("maps") / "ct", "ct")


def written(
    path: Path, source: Path, out: Path, quantity: tuple[str, str] = ("probability", "1"), **file: Any
) -> WrittenMap:
    described = MapDescription(quantity=find_quantity(*quantity), series_description="A map")
    return write_parametric_map(MapFile(path=path, **file), open_source(source), described, out)


def refused(*arguments: Any, **named: Any) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        written(*arguments, **named)
    return caught.value


def by_highdicom(path: Path) -> NDArray[np.float64]:
    """Real world values, slices along the normal."""
    return np.asarray(hd.imread(path).get_volume(apply_real_world_transform=True).array)[::-1]


@pytest.mark.parametrize(
    "kind",
    ["float32", "int16", *(pytest.param(k, marks=pytest.mark.long) for k in ("float64", "uint8", "uint16", "int32"))],
)
def test_values_are_read_back(kind: str, ct: Path, tmp_path: Path) -> None:
    array = (
        VALUES.astype(kind) if kind[0] == "f" else np.rint(VALUES * 100 - (50 if kind[0] == "i" else 0)).astype(kind)
    )
    path = save_nifti(tmp_path / "map.nii", array, grid_of_sources(ct))
    quantity = ("probability", "1") if kind[0] == "f" else ("attenuation", "[hnsf'U]")
    made = written(path, ct, tmp_path / "pm.dcm", quantity)
    ours = read_map(made.path)
    assert ours.stored == {"uint8": "uint16", "int32": "int16"}.get(kind, kind)
    assert np.array_equal(ours.values, array)
    assert np.array_equal(by_highdicom(made.path), array)
    assert made.proof.passed
    assert json.loads(made.receipt.read_text("utf-8"))["hashes"]["object"]


def test_the_slope_of_a_file_is_the_mapping_of_the_object(ct: Path, tmp_path: Path) -> None:
    """Stored integers stay; the slope is applied once, by whoever reads."""
    counts = np.rint(VALUES * 900).astype(np.int16) - 100
    path = save_nifti(tmp_path / "map.nii", counts, grid_of_sources(ct), (0.001, 0.1))
    made = written(path, ct, tmp_path / "pm.dcm")
    dataset = pydicom.dcmread(made.path)
    stored = dataset.pixel_array
    assert (stored.dtype, int(dataset.PixelRepresentation)) == (np.int16, 1)
    assert np.array_equal(stored, counts)
    np.testing.assert_allclose(read_map(made.path).values, counts * 0.001 + 0.1, atol=1e-6)
    np.testing.assert_allclose(by_highdicom(made.path), counts * 0.001 + 0.1, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("form", [*SINGLE_FRAME, *MULTI_FRAME])
def test_every_frame_refers_to_the_image_of_its_position(form: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", form)
    path = save_nifti(tmp_path / "map.nii", VALUES, grid_of_sources(source))
    made = written(path, source, tmp_path / "pm.dcm")
    assert np.array_equal(read_map(made.path).values, VALUES)
    places: dict[tuple[str, int], list[float]] = {}
    for file in source.glob("*.dcm"):
        data = pydicom.dcmread(file)
        groups = data.get("PerFrameFunctionalGroupsSequence")
        for n, group in enumerate(groups or [], 1):
            places[str(data.SOPInstanceUID), n] = list(group.PlanePositionSequence[0].ImagePositionPatient)
        if not groups:
            places[str(data.SOPInstanceUID), 0] = list(data.ImagePositionPatient)
    dataset = pydicom.dcmread(made.path)
    named = set()
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for item in group.DerivationImageSequence[0].SourceImageSequence:
            key = (str(item.ReferencedSOPInstanceUID), int(item.get("ReferencedFrameNumber", 0)))
            named.add(key)
            np.testing.assert_allclose(places[key], group.PlanePositionSequence[0].ImagePositionPatient, atol=1e-6)
    assert named == set(places)  # of several echoes at one position, all
    assert (dataset.Modality, dataset.FrameOfReferenceUID) == ((SINGLE_FRAME | MULTI_FRAME)[form][1], "1.2.3.3")


def test_an_image_with_other_axes_is_turned(ct: Path, tmp_path: Path) -> None:
    """Its axes are exchanged and reversed; the affine states it."""
    affine = grid_of_sources(ct)
    turned = affine @ np.array([[0, -1, 0, SHAPE[2] - 1], [1, 0, 0, 0], [0, 0, -1, SHAPE[0] - 1], [0, 0, 0, 1.0]])
    path = save_nifti(tmp_path / "map.nii", VALUES.transpose(0, 2, 1)[::-1, ::-1], turned)
    assert np.array_equal(read_map(written(path, ct, tmp_path / "pm.dcm").path).values, VALUES)


@pytest.mark.long
def test_dcmqi_reads_it(ct: Path, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "map.nii", VALUES.astype(np.float32), grid_of_sources(ct))
    made = written(path, ct, tmp_path / "pm.dcm")
    run_tool([find_tool("paramap2itkimage"), "--inputDICOM", made.path, "--outputDirectory", tmp_path, "-t", "nrrd"])
    image = SimpleITK.ReadImage(str(tmp_path / "pmap.nrrd"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), VALUES.astype(np.float32))
    np.testing.assert_allclose(image.GetOrigin(), grid_of_sources(ct)[:3, 3], atol=1e-4)
    described = json.loads((tmp_path / "meta.json").read_text("utf-8"))
    assert (described["QuantityValueCode"]["CodeValue"], described["MeasurementUnitsCode"]["CodeValue"]) == (
        "122157",
        "1",
    )


def test_padding_is_stated(ct: Path, tmp_path: Path) -> None:
    array = VALUES.astype(np.float32)
    array[1, 2, :] = np.nan
    path = save_nifti(tmp_path / "map.nii", array, grid_of_sources(ct))
    assert refused(path, ct, tmp_path / "pm.dcm").reason is Reason.BAD_MAP
    made = written(path, ct, tmp_path / "pm.dcm", padding=-1.0)
    assert pydicom.dcmread(made.path).FloatPixelPaddingValue == -1
    np.testing.assert_array_equal(read_map(made.path).values, array)
    counts = np.rint(VALUES * 10).astype(np.int16) - 3
    save_nifti(path, counts, grid_of_sources(ct))
    made = written(path, ct, tmp_path / "counts.dcm", ("attenuation", "[hnsf'U]"), padding=-3)
    np.testing.assert_array_equal(read_map(made.path).values, np.where(counts == -3, np.nan, counts))
    array[0, 0, 0] = np.inf
    save_nifti(path, array, grid_of_sources(ct))
    assert "NaN or infinite" in refused(path, ct, tmp_path / "inf.dcm", padding=-1.0).message
    assert not (tmp_path / "inf.dcm").exists()


def test_wrong_values_are_refused(ct: Path, tmp_path: Path) -> None:
    affine = grid_of_sources(ct)
    one = save_nifti(tmp_path / "one.nii", VALUES, affine)
    hundred = save_nifti(tmp_path / "hundred.nii", VALUES * 100, affine)
    for path, quantity in (
        (one, ("probability", "%")),  # all values are at most 1
        (hundred, ("probability", "1")),
        (one, ("adc", "um2/s")),  # values in mm2/s
        (hundred, ("adc", "mm2/s")),  # values in um2/s
    ):
        found = refused(path, ct, tmp_path / "pm.dcm", quantity)
        assert found.reason is Reason.BAD_MAP
        assert "unit" in found.hint
    assert list(tmp_path.glob("*.dcm")) == []
    for quantity, unit, part in (
        ("probability", "", "no unit"),
        ("probability", "furlong", "furlong"),
        ("adc", "Gy", "adc in Gy"),
        ("adcc", "mm2/s", "'adcc'"),
        ("1,SCT,x", "1", "1"),
        ("113041,DCM", "1", "VALUE,SCHEME,MEANING"),
    ):
        with pytest.raises(CtenrichError, match=r"(?i)unit|quantity|known") as caught:
            find_quantity(quantity, unit)
        assert caught.value.reason is Reason.BAD_PARAMETER
        assert part in caught.value.message


def test_other_grids_are_refused_with_the_difference(ct: Path, tmp_path: Path) -> None:
    affine = grid_of_sources(ct)
    moved, sheared, oblique = affine.copy(), affine.copy(), affine.copy()
    moved[0, 3] += 0.4
    sheared[0, 2] += 0.5
    oblique[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ affine[:3, :3]
    for matrix, array, reason, text in (
        (moved, VALUES, Reason.OTHER_GRID, "0.4 mm"),
        (affine, VALUES[:3], Reason.OTHER_GRID, "5 x 6 x 3 voxels, where the source has 5 x 6 x 4"),
        (oblique, VALUES, Reason.OTHER_GRID, "its corners are up to"),
        (sheared, VALUES, Reason.NOT_ORTHOGONAL, "sheared"),
    ):
        found = refused(save_nifti(tmp_path / "map.nii", array, matrix), ct, tmp_path / "pm.dcm")
        assert (found.reason, text in found.message) == (reason, True), found.message


def test_several_volumes_are_refused(ct: Path, tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((*SHAPE[::-1], 2)), np.eye(4)), tmp_path / "map.nii")
    found = refused(tmp_path / "map.nii", ct, tmp_path / "pm.dcm")
    assert (found.reason, "5 x 6 x 4 x 2" in found.message) == (Reason.BAD_MAP, True)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (lambda planes: [p * 0.5 for p in planes], "map.values"),  # the slope twice
        (lambda planes: list(planes)[::-1], "map.values"),  # frames in wrong order
        (lambda planes: [p[:, ::-1] for p in planes], "map.values"),  # mirrored
        (lambda planes: [p + 2e-6 for p in planes], "map.values"),
    ],
)
def test_the_proof_finds_a_wrong_object(
    fault: Callable[[Any], list[Any]], check: str, ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_nifti(tmp_path / "map.nii", VALUES, grid_of_sources(ct))
    right = write.write_frames
    monkeypatch.setattr(write, "write_frames", lambda d, planes, kind, out: right(d, fault(planes), kind, out))
    with pytest.raises(InconsistencyError, match=check) as caught:
        written(path, ct, tmp_path / "pm.dcm")
    assert caught.value.reason is Reason.PROOF_FAILED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.nii"]


@pytest.mark.long
def test_the_same_input_is_the_same_object(ct: Path, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "map.nii", VALUES, grid_of_sources(ct))
    one, two = (written(path, ct, tmp_path / name).path.read_bytes() for name in ("a.dcm", "b.dcm"))
    assert one == two


@pytest.mark.long
def test_the_command(ct: Path, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "map.nii", VALUES, grid_of_sources(ct))
    common = ["maps", "parametric", str(path), "--source", str(ct), "--out", str(tmp_path / "pm.dcm")]
    found = CliRunner().invoke(app, [*common, "--quantity", "probability", "--unit", "1", "--region", "kidney_left"])
    assert found.exit_code == 0, found.output
    assert "largest difference 0 " in found.output
    anatomy = pydicom.dcmread(tmp_path / "pm.dcm").SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    assert (anatomy.AnatomicRegionSequence[0].CodeValue, anatomy.FrameLaterality) == ("64033007", "L")
    assert CliRunner().invoke(app, [*common, "--quantity", "probability", "--unit", "%"]).exit_code != 0
