"""``ctenrich harmonise`` from masks to proven objects, tables and report; SEGs and structure sets on the same CT."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.codes.tasks import task_classes
from ctenrich.errors import CtenrichError
from ctenrich.harmonise.plan import HarmoniseOptions
from ctenrich.masks import full_mask
from ctenrich.phantom import SEGMENTS, PhantomStudy, write_phantom_study
from ctenrich.reasons import Reason
from ctenrich.records import ProofState, SortedSeries, State
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from tests.support.harmonise_cases import SMALL, Case, make_case, write_labels, write_masks, write_table

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Made:
    """A CT on disk, and a run with masks of others."""

    folder: Path
    study: PhantomStudy
    case: Case
    run: Run

    @property
    def ct(self) -> Path:
        return self.folder / "ct"

    @property
    def uid(self) -> str:
        return self.study.series_instance_uid

    def harmonise(self, masks: Path, **options: object) -> tuple[State, Reason | None, str]:
        """Add a product to the run; returns how it ended."""
        stated = HarmoniseOptions(**({"algorithm_type": "MANUAL"} | options))  # type: ignore[arg-type]
        source = steps.HarmoniseSource(folder=masks, source=self.ct)
        run, _ = steps.harmonise(source, self.run.root, stated)
        outcome = next(o for o in steps.outcomes(run) if o.product == str(run.config.products[-1].product))
        return outcome.state, outcome.reason, outcome.message


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("command")
    study = write_phantom_study(folder / "ct", replace(SMALL, rtstruct=True))
    case = make_case(folder / "case", replace(SMALL, rtstruct=True))
    masks = write_masks(case, folder / "masks")
    voxel = math.prod(case.volume.spacing)
    sizes = {name: float(np.count_nonzero(case.labels == n) * voxel) for n, name in enumerate(SEGMENTS, 1)}
    statistics = {name: {"volume": size, "intensity": 12.5} for name, size in sizes.items()}
    (folder / "statistics.json").write_text(json.dumps(statistics))
    classes = {c.class_name for c in task_classes("totalsegmentator:total")}
    for name in SEGMENTS:
        if name not in classes:
            (masks / f"{name}.nii.gz").unlink()
            del statistics[name]
    (folder / "statistics.json").write_text(json.dumps(statistics))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        arguments = [
            *("harmonise", masks, "--source", folder / "ct", "--as", "totalsegmentator", "--incomplete"),
            *("--measurements", folder / "statistics.json", "--out", folder / "run"),
        ]
        result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "Report:" in result.output
    return Made(folder, study, case, steps.open_run(folder / "run"))


def test_the_masks_are_proven_objects_with_their_measurements(made: Made) -> None:
    store = SeriesStore(made.run.workspace)
    (product,) = [p.product for p in made.run.config.products]
    proof = store.proof(made.uid, product)
    assert proof.passed
    assert {proof.state_of(kind) for kind in ("seg", "shape_sr", "stated_sr")} == {ProofState.PROVEN}
    masks = store.masks(made.uid, product)
    for segment in masks.segments:
        truth = made.case.labels == SEGMENTS.index(segment.name) + 1
        assert np.array_equal(full_mask(masks, segment.number, made.run.workspace), truth)
    paths = {o.kind: made.run.workspace.resolve(made.uid, o.path) for o in store.objects(made.uid, product).objects}
    seg = pydicom.dcmread(paths["seg"])
    assert {s.SegmentAlgorithmName for s in seg.SegmentSequence} == {"TotalSegmentator"}
    assert "weights" not in seg.ContributingEquipmentSequence[0].ContributionDescription
    rows = steps.query(
        made.run,
        "SELECT count(*) AS n FROM quantitative_measurements "
        "WHERE Quantity.CodeMeaning = 'Mean Intensity' AND CAST(Value AS DOUBLE) = 12.5",
    ).to_pylist()
    assert rows[0]["n"] == len(masks.segments)


def test_a_seg_of_others_becomes_the_same_masks(made: Made) -> None:
    store = SeriesStore(made.run.workspace)
    first = made.run.config.products[0].product
    path = made.run.workspace.resolve(made.uid, store.objects(made.uid, first).objects[0].path)
    state, reason, message = made.harmonise(path, name="their-seg", algorithm_type="")
    assert (state, reason) == (State.DONE, None), message
    product = steps.open_run(made.run.root).config.products[-1].product
    theirs, ours = store.masks(made.uid, product), store.masks(made.uid, first)
    assert [s.name for s in theirs.segments] == [s.name for s in ours.segments]
    assert [s.voxels for s in theirs.segments] == [s.voxels for s in ours.segments]
    other = make_case(made.folder / "other", replace(SMALL, seed=6))
    with pytest.raises(CtenrichError) as caught:
        other.harmonise(path)
    assert caught.value.reason is Reason.NO_REFERENCE


def test_a_structure_set_is_drawn_as_the_experts(made: Made) -> None:
    rtstruct = made.study.rtstruct
    assert rtstruct is not None
    series = SeriesStore(made.run.workspace).load(SortedSeries, made.uid)
    case = replace(made.case, series=series)
    masks = case.harmonise(rtstruct)
    assert [s.name for s in masks.segments] == list(SEGMENTS)
    assert case.differing(masks) < 0.02 * np.count_nonzero(made.case.labels)
    names = write_table(made.folder / "few.csv", {"heart": "heart"})
    with pytest.raises(CtenrichError, match="does not have 'Esophagus'"):
        case.harmonise(rtstruct, labels=names)
    other = make_case(made.folder / "another", replace(SMALL, seed=7))
    with pytest.raises(CtenrichError) as caught:
        other.harmonise(rtstruct)
    assert caught.value.reason is Reason.NO_REFERENCE


def test_what_does_not_fit_fails_with_its_reason_and_keeps_the_run(made: Made, tmp_path: Path) -> None:
    mirrored = write_labels(made.case, tmp_path / "mirrored.nii.gz", lambda a: np.flip(a, 2).copy())
    state, reason, message = made.harmonise(mirrored, labels=write_table(tmp_path / "map.csv"))
    assert (state, reason) == (State.FAILED, Reason.WRONG_PLACE)
    assert "lung_left" in message
    store = SeriesStore(made.run.workspace)
    assert store.proof(made.uid, made.run.config.products[0].product).passed


def test_codes_of_the_description_reach_the_seg(made: Made, tmp_path: Path) -> None:
    """A structure that no row has gets its own codes; they are checked like every row."""
    meta = {
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/seg-schema.json#",
        "segmentAttributes": [
            [
                {
                    "labelID": 1,
                    "SegmentLabel": "Fluid around the heart",
                    "SegmentAlgorithmType": "MANUAL",
                    "SegmentedPropertyCategoryCodeSequence": _code("49755003", "Morphologically Abnormal Structure"),
                    "SegmentedPropertyTypeCodeSequence": _code("373945007", "Pericardial effusion"),
                    "recommendedDisplayRGBValue": [10, 20, 30],
                }
            ]
        ],
    }
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    heart = SEGMENTS.index("heart") + 1
    path = write_labels(made.case, tmp_path / "fluid.nii.gz", lambda a: (a == heart).astype(np.uint8))
    state, _, message = made.harmonise(path, meta=tmp_path / "meta.json", algorithm_type="")
    assert state is State.DONE, message
    run = steps.open_run(made.run.root)
    store, product = SeriesStore(run.workspace), run.config.products[-1].product
    seg = pydicom.dcmread(run.workspace.resolve(made.uid, store.objects(made.uid, product).objects[0].path))
    (segment,) = seg.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "373945007"
    assert segment.SegmentDescription == "Fluid around the heart"


def _code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


def test_wrong_requests(made: Made, tmp_path: Path) -> None:
    labels = write_labels(made.case, tmp_path / "labels.nii.gz")
    (tmp_path / "empty").mkdir()
    wrong = {
        "there is no": ["harmonise", tmp_path / "nothing", "--source", made.ct],
        "NOT_FOUND": ["harmonise", labels, "--source", tmp_path / "nothing"],
        "EMPTY_INPUT": ["harmonise", labels, "--source", tmp_path / "empty", "--as", "lungmask"],
        "are not known": ["harmonise", labels, "--source", made.ct, "--as", "somebody"],
    }
    for text, arguments in wrong.items():
        result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / "run")])
        assert result.exit_code == 2, result.output
        assert text in result.output
