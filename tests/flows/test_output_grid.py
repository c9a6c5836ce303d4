"""Objects of models that lie elsewhere than their input: another grid, another plane than the image that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RTDoseStorage, RTStructureSetStorage, SegmentationStorage
from tests.support.containers import ScriptEngine
from tests.support.flows import flow_of
from tests.support.listeners import study_files

from ctenrich.errors import InputError
from ctenrich.flows import step_outputs
from ctenrich.flows.output_grid import InputPlanes, check_grid, check_nifti
from ctenrich.flows.step_graph import StepGraph
from ctenrich.reasons import Reason


def item(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, Sequence([value]) if isinstance(value, Dataset) else value)
    return made


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    return sorted((dcmread(path) for path in study_files()), key=lambda data: float(data.ImagePositionPatient[2]))


@pytest.fixture(scope="module")
def planes(images: list[Dataset]) -> InputPlanes:
    made = InputPlanes()
    for data in images:
        made.add(data)
    return made


def frame(image: Dataset, *, shift: float = 0.0, source: Dataset | None = None) -> Dataset:
    place = [float(value) for value in image.ImagePositionPatient]
    named = item(ReferencedSOPInstanceUID=(source or image).SOPInstanceUID)
    return item(
        PlanePositionSequence=item(ImagePositionPatient=[place[0], place[1], place[2] + shift]),
        PlaneOrientationSequence=item(ImageOrientationPatient=image.ImageOrientationPatient),
        PixelMeasuresSequence=item(PixelSpacing=image.PixelSpacing),
        DerivationImageSequence=item(SourceImageSequence=named),
    )


def seg(images: list[Dataset], *frames: Dataset) -> Dataset:
    return item(
        SOPClassUID=SegmentationStorage,
        FrameOfReferenceUID=images[0].FrameOfReferenceUID,
        Rows=images[0].Rows,
        Columns=images[0].Columns,
        NumberOfFrames=len(frames),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )


def structure(image: Dataset, *, shift: float = 0.0, at: float = 0.0, named: Dataset | None = None) -> Dataset:
    x, y, z = (float(value) for value in image.ImagePositionPatient)
    points = [x + at, y, z + shift, x + at + 20, y, z + shift, x + at + 20, y + 20, z + shift]
    contour = item(
        ContourGeometricType="CLOSED_PLANAR",
        ContourData=points,
        ContourImageSequence=item(ReferencedSOPInstanceUID=(named or image).SOPInstanceUID),
    )
    return item(
        SOPClassUID=RTStructureSetStorage,
        FrameOfReferenceUID=image.FrameOfReferenceUID,
        ROIContourSequence=item(ContourSequence=contour),
    )


def test_what_lies_on_the_grid_of_the_input_may_leave(images: list[Dataset], planes: InputPlanes) -> None:
    check_grid(images[2], planes)
    check_grid(seg(images, frame(images[1]), frame(images[1]), frame(images[4])), planes)
    check_grid(structure(images[3]), planes)
    reversed_rows = seg(images, frame(images[0]))
    groups = reversed_rows.PerFrameFunctionalGroupsSequence[0]
    turn, place = list(images[0].ImageOrientationPatient), list(images[0].ImagePositionPatient)
    groups.PlaneOrientationSequence[0].ImageOrientationPatient = [*turn[:3], *(-float(value) for value in turn[3:])]
    place[1] = float(place[1]) + float(images[0].PixelSpacing[0]) * (images[0].Rows - 1)
    groups.PlanePositionSequence[0].ImagePositionPatient = place
    check_grid(reversed_rows, planes)


def _rows(data: Dataset) -> None:
    data.Rows = 12


def _spacing(data: Dataset) -> None:
    data.PerFrameFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [16.5, 16.5]


def _turned(data: Dataset) -> None:
    orientation = [1, 0, 0, 0, 0.995, 0.0998]
    data.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = orientation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rows, "12 x 24 pixels, its input 24 x 24"),
        (_spacing, "16.3 mm away"),
        (_turned, "corners of a plane are .* mm away"),
    ],
)
def test_segmentations_on_another_grid(
    images: list[Dataset], planes: InputPlanes, change: Callable[[Dataset], None], message: str
) -> None:
    made = seg(images, frame(images[0]))
    change(made)
    with pytest.raises(InputError, match=message) as caught:
        check_grid(made, planes)
    assert caught.value.reason is Reason.FOREIGN_OBJECT


def test_a_frame_between_the_slices_and_one_that_names_another_slice(
    images: list[Dataset], planes: InputPlanes
) -> None:
    with pytest.raises(InputError, match="20 mm away"):
        check_grid(seg(images, frame(images[0]), frame(images[1], shift=20.0)), planes)
    with pytest.raises(InputError, match="frame 2 on another plane"):
        check_grid(seg(images, frame(images[0]), frame(images[1], source=images[4])), planes)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shift": 7.5}, "7.5 mm away"), ({"at": 500.0}, "pixels outside"), ({"named": 5}, "the image that it names")],
)
def test_contours_elsewhere(
    images: list[Dataset], planes: InputPlanes, options: dict[str, float], message: str
) -> None:
    named = images[int(options.pop("named"))] if "named" in options else None
    with pytest.raises(InputError, match=message):
        check_grid(structure(images[3], named=named, **options), planes)


def test_an_object_is_compared_with_the_series_that_it_names(images: list[Dataset], planes: InputPlanes) -> None:
    other = InputPlanes()
    for data in images:
        other.add(data)
        moved = item(**{name: data[name].value for name in ("Rows", "Columns", "ImageOrientationPatient")})
        moved.PixelSpacing, moved.SeriesInstanceUID, moved.SOPInstanceUID = [10.0, 10.0], "1.2.3", "1.2.4"
        moved.ImagePositionPatient = data.ImagePositionPatient
        other.add(moved)
    made = seg(images, frame(images[0]))
    check_grid(made, other)
    made.ReferencedSeriesSequence = Sequence([item(SeriesInstanceUID="1.2.3")])
    with pytest.raises(InputError, match="mm away"):
        check_grid(made, other)


def test_what_has_no_geometry_or_one_of_its_own(images: list[Dataset], planes: InputPlanes, tmp_path: Path) -> None:
    dose = item(SOPClassUID=RTDoseStorage, Rows=3, Columns=3, FrameOfReferenceUID="1.2")
    check_grid(dose, planes)
    check_grid(seg(images, frame(images[0], shift=3.0)), InputPlanes())
    bad = structure(images[0])
    bad.ROIContourSequence[0].ContourSequence[0].ContourData = [1.0, 2.0]
    with pytest.raises(InputError) as caught:
        check_grid(bad, planes)
    assert caught.value.reason is Reason.MISSING_GEOMETRY


# ---------------------------------------------------------------- NIfTI


def nifti(images: list[Dataset], path: Path, *, shift: float = 0.0, reverse: bool = False, cut: int = 0) -> Path:
    """A mask on the voxels of the images, [i, j, k], RAS; with its axes exchanged and reversed, or moved, or cut."""
    import nibabel

    place, spacing = (list(map(float, images[0][name].value)) for name in ("ImagePositionPatient", "PixelSpacing"))
    step = float(images[1].ImagePositionPatient[2]) - place[2]
    affine = np.diag([-spacing[1], -spacing[0], step, 1.0])
    affine[:3, 3] = -place[0] + shift, -place[1], place[2]
    size = (images[0].Columns, images[0].Rows, len(images) - cut)
    made = nibabel.Nifti1Image(np.zeros(size, np.uint8), affine)
    if reverse:
        made = made.as_reoriented(np.array([[2, 1], [0, -1], [1, -1]]))
        assert made.shape != size
    nibabel.save(made, path)
    return path


def test_masks_on_the_voxels_of_the_input_also_with_other_axes(
    images: list[Dataset], planes: InputPlanes, tmp_path: Path
) -> None:
    check_nifti(nifti(images, tmp_path / "a.nii.gz"), planes)
    check_nifti(nifti(images, tmp_path / "b.nii.gz", reverse=True), planes)
    check_nifti(nifti(images, tmp_path / "c.nii", shift=0.02), planes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": 0.5}, "a corner is 0.5 mm away"),
        ({"shift": 0.5, "reverse": True}, "a corner is 0.5 mm away"),
        ({"cut": 1}, "has 5 x 24 x 24 voxels, its input 6 x 24 x 24"),
    ],
)
def test_masks_on_another_grid(
    images: list[Dataset], planes: InputPlanes, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_nifti(nifti(images, tmp_path / "a.nii.gz", **options), planes)
    assert caught.value.reason is Reason.FOREIGN_OBJECT


def test_a_file_that_is_no_nifti(planes: InputPlanes, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"text")
    with pytest.raises(InputError) as caught:
        check_nifti(tmp_path / "a.nii.gz", planes)
    assert caught.value.reason is Reason.DECODE_ERROR


@pytest.mark.parametrize("byte", [-8, -1], ids=["checksum", "length"])
def test_a_packed_file_that_was_damaged(images: list[Dataset], planes: InputPlanes, tmp_path: Path, byte: int) -> None:
    path = nifti(images, tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        check_nifti(path, planes)
    assert caught.value.reason is Reason.DECODE_ERROR


@pytest.mark.parametrize(("keys", "reason"), [("", None), (", grid: input", Reason.FOREIGN_OBJECT)])
def test_a_step_that_has_to_keep_the_grid(
    images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, reason: Reason | None
) -> None:
    monkeypatch.setattr(step_outputs, "run_dciodvfy", lambda *_: [])
    mask = nifti(images, tmp_path / "mask.nii.gz", shift=8.0)
    text = f"""
        triggers: [{{}}]
        models:
          - {{name: network, image: network, outputs: {{masks: /masks}}{keys}}}
          - {{name: writer, image: writer, inputs: {{src: /input, masks: /masks}}}}
    """
    engine = ScriptEngine(network=f'cp {mask} "$MASKS"', writer='cp "$INPUT"/* "$OUTPUT"')
    run = StepGraph(flow=flow_of(text), engine=engine, folder=tmp_path / "case")
    sources = {"src": {path.name: path for path in study_files()}}
    if reason is None:
        assert len(run.run(sources)) == 2
        return
    for _ in range(2):  # the second time the step is done, and is examined again
        with pytest.raises(InputError, match="8 mm away") as caught:
            run.run(sources)
        assert caught.value.reason is reason
    assert engine.ran == ["network"]
