"""The proof holds for what was written, and fails for every fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.records import EncodedObject, Proof, SegmentMasks, ShapeMeasurements, SortedSeries, Volume
from ctenrich.settings import EncodeSettings, Settings
from ctenrich.shape.measure import measure_shape
from ctenrich.workspace import Workspace, sha256_of_file
from tests.support import encode_cases as cases
from tests.support.proofs import prove_bodypart, prove_segmentation

SETTINGS = Settings()


@dataclass
class Made:
    """One product with its objects on disk."""

    series: SortedSeries
    volume: Volume
    masks: SegmentMasks
    shape: ShapeMeasurements
    objects: tuple[EncodedObject, ...]
    workspace: Workspace

    def prove(self) -> Proof:
        return prove_segmentation(
            self.masks, self.shape, self.volume, self.series, self.objects, settings=SETTINGS, workspace=self.workspace
        )

    def path(self, number: int) -> Path:
        return self.workspace.resolve(self.series.series_instance_uid, self.objects[number].path)

    def change(self, number: int, edit: Callable[[Dataset], None]) -> None:
        """Edit an object on disk, and its record's hash with it: only the content can give the fault away."""
        ds = pydicom.dcmread(self.path(number))
        edit(ds)
        ds.save_as(self.path(number))
        changed = replace(self.objects[number], sha256=sha256_of_file(self.path(number)))
        self.objects = tuple(changed if n == number else o for n, o in enumerate(self.objects))


def make(tmp_path, workspace, grid=None, expert=False, settings=SETTINGS, labels=None, without=()) -> Made:
    series, volume = cases.make_series(tmp_path / "ct", grid)
    if without:
        series = replace(series, slices=tuple(s for k, s in enumerate(series.slices) if k not in without))
        volume = cases.volume_of(series)
    if expert:
        masks = cases.make_expert_masks(series, workspace)
    else:
        masks = cases.make_masks(series, workspace, None if labels is None else labels(series.shape))
    shape = measure_shape(masks, volume, settings=settings, workspace=workspace)
    seg = encode_seg(masks, volume, series, settings=settings, workspace=workspace)
    sr = encode_shape_sr(shape, masks, seg, series, settings=settings, workspace=workspace)
    return Made(series, volume, masks, shape, (seg, sr), workspace)


@pytest.fixture
def made(tmp_path, workspace) -> Made:
    return make(tmp_path, workspace)


def failed(proof: Proof) -> set[str]:
    return {check.name for check in proof.checks if not check.passed}


def assert_proven(proof: Proof) -> None:
    assert proof.passed, [c for c in proof.checks if not c.passed]


# ---------------------------------------------------------------- what is right is proven


@pytest.mark.parametrize(
    ("expert", "seg_type"),
    [(False, "BINARY"), (False, "LABELMAP"), (False, "FRACTIONAL"), (True, "BINARY"), (True, "FRACTIONAL")],
)
def test_what_was_written_is_proven(tmp_path, workspace, expert, seg_type):
    settings = replace(SETTINGS, encode=EncodeSettings(seg_type=seg_type))
    made = make(tmp_path, workspace, expert=expert, settings=settings)
    proof = made.prove()
    assert_proven(proof)
    assert {"seg.voxels", "seg.centroids", "seg.references", "shape_sr.values", "volumes"} <= {
        c.name for c in proof.checks
    }
    assert proof.hashes["seg"] == made.objects[0].sha256


def orientations() -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Sixteen ways to lie: axial, coronal and sagittal planes with all signs, and two oblique ones."""
    axes = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
    out = {}
    for row, column in (("x", "y"), ("x", "z"), ("y", "z")):
        for a in (1, -1):
            for b in (1, -1):
                name = f"{'+' if a > 0 else '-'}{row}{'+' if b > 0 else '-'}{column}"
                out[name] = (tuple(a * v for v in axes[row]), tuple(b * v for v in axes[column]))
    out["+y+x"] = (axes["y"], axes["x"])
    out["-y+x"] = (tuple(-v for v in axes["y"]), axes["x"])
    out["oblique"] = ((0.6, 0.64, 0.48), (-0.8, 0.48, 0.36))
    out["tilted"] = ((1.0, 0.0, 0.0), (0.0, 0.96, -0.28))
    return out


ORIENTATIONS = orientations()


def test_the_orientations_are_orthonormal_and_different_with_planes_of_every_axis():
    axes = {row: np.array(pair) for row, pair in ORIENTATIONS.items()}
    for name, pair in axes.items():
        np.testing.assert_allclose(pair @ pair.T, np.eye(2), atol=1e-12, err_msg=name)
    assert len({pair.tobytes() for pair in axes.values()}) == len(axes)
    normals = {tuple(np.abs(np.cross(*pair)).round(3).tolist()) for pair in axes.values()}
    assert {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)} < normals


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_is_proven_and_a_flip_or_a_shift_is_found(tmp_path, workspace, name):
    row, column = ORIENTATIONS[name]
    made = make(tmp_path, workspace, cases.Grid(row=row, column=column))
    assert_proven(made.prove())
    path, original, record = made.path(0), made.path(0).read_bytes(), made.objects
    for plant in (flip_rows, flip_columns, turn_stack_around, shift_one_slice, shift_one_pixel, claim_flipped_axis):
        path.write_bytes(original)
        made.objects = record
        made.change(0, plant)
        assert "seg.voxels" in failed(made.prove()), plant.__name__


def frame_items(ds: Dataset) -> list[Dataset]:
    return list(ds.PerFrameFunctionalGroupsSequence)


def pixels(ds: Dataset) -> np.ndarray:
    size = int(ds.NumberOfFrames) * ds.Rows * ds.Columns
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")[:size]
    return bits.reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns)


def put(ds: Dataset, planes: np.ndarray) -> None:
    packed = np.packbits(planes.ravel(), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)


def flip_rows(ds):
    put(ds, pixels(ds)[:, ::-1])


def flip_columns(ds):
    put(ds, pixels(ds)[:, :, ::-1])


def turn_stack_around(ds):
    """The pixels of the first frame at the place of the last, and so on: reversed front to back."""
    put(ds, pixels(ds)[::-1])


def shift_one_slice(ds):
    items = frame_items(ds)
    places = [np.array(i.PlanePositionSequence[0].ImagePositionPatient, float) for i in items]
    orientation = np.array(
        ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float
    )
    normal = np.cross(orientation[:3], orientation[3:])
    for item, place in zip(items, places, strict=True):
        moved = place + normal * 2.5
        item.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.6f}" for v in moved]


def shift_one_pixel(ds):
    put(ds, np.roll(pixels(ds), 1, axis=2))


def claim_flipped_axis(ds):
    """The fault that a neighbouring tool shipped: the pixels as they are, the column direction negated."""
    item = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    cosines = [float(v) for v in item.ImageOrientationPatient]
    item.ImageOrientationPatient = [*cosines[:3], *(-v for v in cosines[3:])]


def gapped(shape: tuple[int, int, int]) -> np.ndarray:
    """Heart and esophagus that are on no slice between 5 and 8, and differ on every slice."""
    labels = np.zeros(shape, np.uint8)
    for k in (*range(1, 6), *range(8, 13)):
        labels[k, 5 : 10 + k, 8 : 20 + k] = 2
        labels[k, 30 : 34 + k % 3, 3 : 6 + k % 4] = 1
    return labels


def close_the_gap(ds):
    """What a writer does that counts frames instead of slices: behind the gap each frame is put two slices too low."""
    shared = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    cosines = np.array(shared.ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    places = [np.array(i.PlanePositionSequence[0].ImagePositionPatient, float) for i in frame_items(ds)]
    lowest = min(place @ normal for place in places)
    for item, place in zip(frame_items(ds), places, strict=True):
        if place @ normal - lowest > 6 * 2.5:
            item.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.6f}" for v in place - 2 * 2.5 * normal]


def fill_the_gap(ds):
    """A frame in the gap that should not be there: a copy of the one before it, one slice higher."""
    items, planes = frame_items(ds), pixels(ds)
    ds.PerFrameFunctionalGroupsSequence = [*items[:5], items[4], *items[5:]]
    put(ds, np.concatenate([planes[:5], planes[4:]]))
    ds.NumberOfFrames = len(items) + 1
    copied = pydicom.Dataset()
    copied.update(frame_items(ds)[5])
    above = pydicom.Dataset()
    here, there = (np.array(i.PlanePositionSequence[0].ImagePositionPatient, float) for i in items[3:5])
    above.ImagePositionPatient = [f"{v:.6f}" for v in there + (there - here)]
    copied.PlanePositionSequence = [above]
    ds.PerFrameFunctionalGroupsSequence[5] = copied


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_organs_with_a_gap_are_proven_and_every_fault_around_the_gap_is_found(tmp_path, workspace, name):
    row, column = ORIENTATIONS[name]
    made = make(tmp_path, workspace, cases.Grid(row=row, column=column), labels=gapped)
    assert_proven(made.prove())
    path, original, record = made.path(0), made.path(0).read_bytes(), made.objects
    plants = (flip_rows, flip_columns, turn_stack_around, shift_one_slice, claim_flipped_axis)
    for plant in (*plants, close_the_gap, fill_the_gap, swap_segment_numbers):
        path.write_bytes(original)
        made.objects = record
        made.change(0, plant)
        assert "seg.voxels" in failed(made.prove()), plant.__name__


@pytest.mark.parametrize("without", [(6,), (6, 7), (1,)])
def test_a_stack_with_slices_missing_is_not_proven(tmp_path, workspace, without):
    """Sorting refuses such a series; if it came through, no regular grid has these slices in their places."""
    made = make(tmp_path, workspace, without=without)
    assert {"volume.grid", "seg.centroids"} <= failed(made.prove())


def test_a_mirrored_description_of_the_same_place_is_accepted(made):
    """Pixels flipped and axis negated together lie where they lay: the proof is about places, not about arrays."""

    def mirror(ds):
        flip_rows(ds)
        claim_flipped_axis(ds)
        down = np.array(ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient[3:])
        step = -down.astype(float) * (ds.Rows - 1) * 0.8
        for item in frame_items(ds):
            place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
            item.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.6f}" for v in place + step]

    made.change(0, mirror)
    assert not {"seg.voxels", "seg.centroids"} & failed(made.prove())


# ---------------------------------------------------------------- planted faults


def swap_segment_numbers(ds):
    for item in frame_items(ds):
        reference = item.SegmentIdentificationSequence[0]
        reference.ReferencedSegmentNumber = {1: 2, 2: 1}.get(reference.ReferencedSegmentNumber, 4)


def swap_descriptions(ds):
    one, two = ds.SegmentSequence[0], ds.SegmentSequence[1]
    for keyword in ("SegmentedPropertyTypeCodeSequence", "SegmentLabel"):
        first, second = getattr(one, keyword), getattr(two, keyword)
        setattr(one, keyword, second)
        setattr(two, keyword, first)


def drop_a_frame(ds):
    ds.PerFrameFunctionalGroupsSequence = frame_items(ds)[1:]
    put(ds, pixels(ds)[1:])
    ds.NumberOfFrames = int(ds.NumberOfFrames) - 1


def lose_one_voxel(ds):
    planes = pixels(ds).copy()
    planes[tuple(np.argwhere(planes)[0])] = 0
    put(ds, planes)


def add_one_voxel(ds):
    planes = pixels(ds).copy()
    planes[0, 0, 0] = 1
    put(ds, planes)


def another_frame_of_reference(ds):
    ds.FrameOfReferenceUID = "2.25.12345"


def a_reference_that_does_not_exist(ds):
    ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "2.25.12345"


def frames_name_the_next_slice(ds):
    items = frame_items(ds)
    uids = [i.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for i in items]
    for item, uid in zip(items, uids[1:] + uids[:1], strict=True):
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = uid


def another_study(ds):
    ds.StudyInstanceUID = "2.25.12345"


def other_spacing(ds):
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [0.7, 0.7]


SEG_FAULTS = {
    swap_segment_numbers: "seg.voxels",
    swap_descriptions: "seg.segments",
    drop_a_frame: "seg.voxels",
    lose_one_voxel: "seg.voxels",
    add_one_voxel: "seg.voxels",
    another_frame_of_reference: "seg.frame_of_reference",
    a_reference_that_does_not_exist: "seg.references",
    frames_name_the_next_slice: "seg.frame_references",
    another_study: "seg.study",
    other_spacing: "seg.centroids",
}


@pytest.mark.parametrize("plant", SEG_FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_the_seg_is_found(made, plant):
    made.change(0, plant)
    proof = made.prove()
    assert not proof.passed
    assert SEG_FAULTS[plant] in failed(proof)


def groups(ds: Dataset) -> list[Dataset]:
    measurements = ds.ContentSequence[-1]
    return list(measurements.ContentSequence)


def items(group: Dataset, kind: str) -> list[Dataset]:
    return [i for i in group.ContentSequence if i.ValueType == kind]


def another_number(ds):
    value = items(groups(ds)[0], "NUM")[3].MeasuredValueSequence[0]
    value.NumericValue = f"{float(value.NumericValue) * 1.00001:.8g}"


def another_exact_number(ds):
    value = items(groups(ds)[0], "NUM")[3].MeasuredValueSequence[0]
    value.FloatingPointValue = float(np.nextafter(value.FloatingPointValue, 1e9))


def another_unit(ds):
    value = items(groups(ds)[0], "NUM")[0].MeasuredValueSequence[0]
    value.MeasurementUnitsCodeSequence[0].CodeValue = "cm"


def swapped_groups(ds):
    first, second = groups(ds)[:2]
    one, two = items(first, "IMAGE")[0], items(second, "IMAGE")[0]
    a, b = one.ReferencedSOPSequence[0], two.ReferencedSOPSequence[0]
    a.ReferencedSegmentNumber, b.ReferencedSegmentNumber = b.ReferencedSegmentNumber, a.ReferencedSegmentNumber


def a_missing_number(ds):
    group = groups(ds)[0]
    group.ContentSequence = [i for i in group.ContentSequence if i is not items(group, "NUM")[0]]


def a_number_too_many(ds):
    group = groups(ds)[0]
    extra = items(groups(ds)[1], "NUM")[0]
    group.ContentSequence = [*group.ContentSequence, extra]


def another_seg(ds):
    items(groups(ds)[0], "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.12345"


def absent_is_not_stated(ds):
    group = groups(ds)[2]
    group.ContentSequence = [i for i in group.ContentSequence if not _absent(i)]


def _absent(item: Dataset) -> bool:
    return item.ValueType == "CODE" and item.ConceptCodeSequence[0].CodeMeaning == "Absent"


def evidence_is_empty(ds):
    del ds.CurrentRequestedProcedureEvidenceSequence


SR_FAULTS = {
    another_number: "shape_sr.values",
    another_exact_number: "shape_sr.values",
    another_unit: "shape_sr.values",
    swapped_groups: "shape_sr.places",
    a_missing_number: "shape_sr.values",
    a_number_too_many: "shape_sr.values",
    another_seg: "shape_sr.groups",
    absent_is_not_stated: "shape_sr.values",
    evidence_is_empty: "shape_sr.references",
    another_study: "shape_sr.study",
}


@pytest.mark.parametrize("plant", SR_FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_the_shape_sr_is_found(made, plant):
    made.change(1, plant)
    proof = made.prove()
    assert SR_FAULTS[plant] in failed(proof)


def test_volumes_must_agree(made):
    """Spacing that was taken wrongly on the way to the measurements shows in mm3, though all voxels are right."""
    wrong = replace(made.volume, spacing=(2.5, 0.8, 0.8))
    made.shape = measure_shape(made.masks, wrong, settings=SETTINGS, workspace=made.workspace)
    seg = made.objects[0]
    options = {"settings": SETTINGS, "workspace": made.workspace}
    made.objects = (seg, encode_shape_sr(made.shape, made.masks, seg, made.series, **options))
    assert failed(made.prove()) == {"volumes"}


def test_bytes_that_changed_after_writing_are_found(made):
    data = bytearray(made.path(1).read_bytes())
    data[40] ^= 1  # in the preamble: no reader minds
    made.path(1).write_bytes(data)
    assert failed(made.prove()) == {"shape_sr.file"}


def test_source_slices_that_are_gone_or_moved_are_found(made, tmp_path):
    path = Path(made.series.slices[3].path)
    ds = pydicom.dcmread(path)
    ds.ImagePositionPatient = [float(v) + 0.05 for v in ds.ImagePositionPatient]
    ds.save_as(path)
    assert {"volume.grid"} <= failed(made.prove())
    path.unlink()
    found = failed(made.prove())
    assert {"source.instances", "seg.references", "shape_sr.references"} <= found


def test_slices_a_little_off_their_line_are_proven_and_a_shift_is_still_found(tmp_path, workspace):
    made = make(tmp_path, workspace, cases.Grid(jitter=0.04))
    assert_proven(made.prove())
    made.volume = replace(made.volume, affine_lps=tuple(tuple(v + 0.2 for v in row) for row in made.volume.affine_lps))
    assert {"volume.grid", "seg.centroids"} <= failed(made.prove())


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_a_broken_object_fails_the_proof_and_raises_nothing(made, content):
    made.path(0).write_bytes(content)
    assert "seg.file" in failed(made.prove())


def test_a_cut_object_fails_the_proof(made):
    whole = made.path(0).read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        made.path(0).write_bytes(whole[: int(len(whole) * share)])
        made.objects = (replace(made.objects[0], sha256=sha256_of_file(made.path(0))), made.objects[1])
        assert not made.prove().passed


def test_without_objects_nothing_is_proven(made):
    made.objects = ()
    assert {"seg.exists", "shape_sr.exists"} <= failed(made.prove())


def test_a_wide_gap_between_slices_does_not_hide_a_shift(tmp_path, workspace):
    made = make(tmp_path, workspace, cases.Grid(step=12.5))
    assert_proven(made.prove())

    def shift(ds):
        for item in frame_items(ds):
            place = item.PlanePositionSequence[0]
            x, y, z = (float(v) for v in place.ImagePositionPatient)
            place.ImagePositionPatient = [x, y, z + 0.02]

    made.change(0, shift)
    assert {"seg.voxels", "seg.centroids", "seg.frame_references"} <= failed(made.prove())


# ---------------------------------------------------------------- body part regression


@dataclass
class Body:
    made: Made
    scores: object
    landmarks: object
    regions: object

    def prove(self) -> Proof:
        m = self.made
        options = {"settings": SETTINGS, "workspace": m.workspace}
        return prove_bodypart(self.scores, self.landmarks, self.regions, m.series, m.objects, **options)


@pytest.fixture
def body(tmp_path, workspace) -> Body:
    series, volume = cases.make_series(tmp_path / "ct")
    scores, landmarks, regions = cases.make_scores(series), cases.make_landmarks(series), cases.make_regions(series)
    options = {"settings": SETTINGS, "workspace": workspace}
    objects = (
        encode_landmarks_sr(landmarks, scores, series, **options),
        encode_regions_sr(regions, scores, series, **options),
    )
    return Body(Made(series, volume, None, None, objects, workspace), scores, landmarks, regions)


def test_body_part_objects_are_proven(body):
    assert_proven(body.prove())


def next_slice(ds):
    group = groups(ds)[3]
    reference = items(group, "IMAGE")[0].ReferencedSOPSequence[0]
    other = items(groups(ds)[1], "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    reference.ReferencedSOPInstanceUID = other


def other_site(ds):
    for group in reversed(groups(ds)):
        for item in items(group, "CODE"):
            if item.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site":
                item.ConceptCodeSequence[0].CodeValue = "80891009"
                return


def no_modifier(ds):
    for group in groups(ds):
        for item in items(group, "CODE"):
            if "ContentSequence" in item:
                del item.ContentSequence
                return


def other_score(ds):
    value = items(groups(ds)[3], "NUM")[0].MeasuredValueSequence[0]
    value.NumericValue, value.FloatingPointValue = "1.5", 1.5


def a_lost_group(ds):
    measurements = ds.ContentSequence[-1]
    measurements.ContentSequence = list(measurements.ContentSequence)[:-1]


@pytest.mark.parametrize("plant", [next_slice, other_site, other_score, a_lost_group], ids=lambda f: f.__name__)
@pytest.mark.parametrize("number", [0, 1], ids=["landmarks", "regions"])
def test_a_fault_in_a_body_part_sr_is_found(body, plant, number):
    body.made.change(number, plant)
    name = ("landmarks_sr", "regions_sr")[number]
    assert {f"{name}.values", f"{name}.groups"} & failed(body.prove())


def test_a_lost_modifier_is_found(body):
    body.made.change(0, no_modifier)
    assert "landmarks_sr.values" in failed(body.prove())


def test_scores_of_another_order_are_found(body):
    body.scores = replace(body.scores, sop_instance_uids=body.scores.sop_instance_uids[::-1])
    assert "scores.slices" in failed(body.prove())
    body.scores = replace(body.scores, z=tuple(2 * z for z in body.scores.z))
    assert "scores.z" in failed(body.prove())
