"""A kind of segmenter or object that another package registers goes everywhere that the package's own go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from tests.support.cohorts import make_cohort
from tests.support.threshold_segmenter import THRESHOLD
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.errors import UsageError
from ctenrich.inference import kinds
from ctenrich.objects import kinds as object_kinds
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, ProofState, SegmentMasks, ShapeMeasurements, SliceScores
from ctenrich.runner.object_check import check_run
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.uids import derive_uid

Register = Callable[..., None]
DEMO_SCORER = "demo-bodypart"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("kinds"), 1)


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register entry points as an installed package does: a folder of metadata on the path."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def add(group: str, **points: str) -> None:
        folder = tmp_path / "site" / "other_kinds-1.0.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other-kinds\nVersion: 1.0\n")
        with (folder / "entry_points.txt").open("a") as file:
            file.write(f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items()))

    return add


def test_a_segmenter_of_another_package_goes_through_the_whole_job(
    cohort: Path, tmp_path: Path, register: Register
) -> None:
    register(kinds.GROUP, threshold="tests.support.threshold_segmenter:THRESHOLD")
    run = steps.start(cohort, tmp_path / "run", segmenters=["threshold:-600:tissue=20"])
    assert steps.run_all(run).exit_code == 0
    uid = run.cohort.series[0].series_instance_uid
    store, product = SeriesStore(run.workspace), run.config.products[0].product
    assert str(product) == "threshold:-600"
    assert store.proof(uid, product).passed
    seg = pydicom.dcmread(store.objects_dir(uid, product) / "seg.dcm")
    assert seg.SeriesDescription == "threshold-600_Segmentation"
    assert [item.SegmentAlgorithmType for item in seg.SegmentSequence] == ["AUTOMATIC", "AUTOMATIC"]
    report = pydicom.dcmread(store.objects_dir(uid, product) / "shape_sr.dcm")
    assert report.SeriesDescription == "threshold-600_Measurements"
    assert list(steps.segment(run)) == [(uid, "threshold:-600")]
    rows = pq.read_table(run.workspace.tables / "segments.parquet").to_pylist()
    assert {row["product"] for row in rows} == {"threshold:-600"}
    pages = [page.read_text() for page in run.workspace.report.rglob("*.html")]
    assert any("threshold:-600" in page for page in pages), "the page of the series"


def test_a_segmenter_of_another_package_is_forecast_and_cropped(
    cohort: Path, tmp_path: Path, register: Register
) -> None:
    register(kinds.GROUP, threshold="tests.support.threshold_segmenter:THRESHOLD")
    done = CliRunner().invoke(app, ["plan", str(cohort), "--segmenter", "threshold:-600"])
    assert done.exit_code == 0, done.output
    assert "threshold" in done.output
    settings = replace(Settings(), segment=SegmentSettings(crop="lung_start..lung_end"))
    run = steps.start(
        cohort,
        tmp_path / "run",
        segmenters=["threshold:-600"],
        bodypart=DEMO_SCORER,
        settings=settings,
        allow_demo=True,
    )
    for stage in (steps.fetch, steps.sort, steps.convert, steps.score):
        stage(run)
    (masks,) = steps.segment(run).values()
    assert {issue.rule for issue in masks.issues} & {"cropped", "not_cropped"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ("segment", "paint")}, "forecast"),
        ({"stages": ("segment", "validate", "encode")}, "has the stages"),
        ({"objects": ("seg", "hologram")}, "hologram"),
        ({"objects": ("seg", "landmarks_sr")}, "SliceScores"),
        ({"algorithm_type": "MAGIC"}, "MAGIC"),
        ({"key": "other"}, "other"),
        ({"title": " "}, "title"),
        ({"seconds_per_slice": {}}, "forecast"),
    ],
)
def test_a_kind_that_is_not_completely_described_is_refused_before_any_work(
    cohort: Path,
    tmp_path: Path,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    message: str,
) -> None:
    broken = replace(THRESHOLD, **change)  # type: ignore[arg-type]
    monkeypatch.setattr("tests.support.threshold_segmenter.THRESHOLD", broken)
    register(kinds.GROUP, threshold="tests.support.threshold_segmenter:THRESHOLD")
    with pytest.raises(UsageError, match=message):
        steps.start(cohort, tmp_path / "run", segmenters=["threshold:-600"])
    assert not (tmp_path / "run").exists()


def test_an_unknown_kind_is_refused_before_any_work(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not name a segmenter"):
        steps.start(cohort, tmp_path / "run", segmenters=["threshold:-600"])
    assert not (tmp_path / "run").exists()


def test_the_key_of_a_kind_of_this_package_is_taken(register: Register) -> None:
    register(kinds.GROUP, expert="tests.support.threshold_segmenter:THRESHOLD")
    with pytest.raises(UsageError) as caught:
        kinds.segmenter_kinds()
    assert caught.value.reason is Reason.BAD_PLUGIN


# ---------------------------------------------------------------- objects


def copy_of_the_report(context: EncodeContext) -> EncodedObject:
    """An object of another kind: the shape SR under identifiers of its own."""
    first, uid = context.written["shape_sr"], context.records.uid
    dataset = pydicom.dcmread(context.workspace.resolve(uid, first.path))
    dataset.SOPInstanceUID = derive_uid(first.sop_instance_uid, "copy")
    dataset.SeriesInstanceUID = derive_uid(first.series_instance_uid, "copy")
    target = ObjectTarget(kind="second_sr", series_instance_uid=uid, product=context.records.product)
    return write_object(dataset, target, context.workspace)


SECOND_SR = ObjectDefinition(
    key="second_sr",
    title="a second report",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.22",
    series_description="second",
    tables=("measurement_groups",),
    reads=(SegmentMasks, ShapeMeasurements),
    encode=copy_of_the_report,
    prove=None,
)


def test_an_object_without_a_proof_is_never_proven(
    cohort: Path, tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = replace(THRESHOLD, objects=("seg", "shape_sr", "second_sr"))
    monkeypatch.setattr("tests.support.threshold_segmenter.THRESHOLD", kind)
    register(kinds.GROUP, threshold="tests.support.threshold_segmenter:THRESHOLD")
    register(object_kinds.GROUP, second_sr="tests.runner.test_new_kinds:SECOND_SR")
    run = steps.start(cohort, tmp_path / "run", segmenters=["threshold:-600"])
    assert steps.run_all(run).exit_code == 0
    uid, product = run.cohort.series[0].series_instance_uid, run.config.products[0].product
    proof = SeriesStore(run.workspace).proof(uid, product)
    assert [proof.state_of(kind) for kind in ("seg", "shape_sr", "second_sr")] == [
        ProofState.PROVEN,
        ProofState.PROVEN,
        ProofState.NOT_PROVEN,
    ]
    found = {Path(report.file).name: report.proven for report in check_run(run, again=True)}
    assert found == {"seg.dcm": True, "shape_sr.dcm": True, "second_sr.dcm": None}
    issues = pq.read_table(run.workspace.tables / "issues.parquet").to_pylist()
    assert "proof.second_sr.missing" in {row["rule"] for row in issues}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sop_class_uid": "seg"}, "SOP class"),
        ({"reads": ()}, "record"),
        ({"reads": (int,)}, "record"),
        ({"tables": ()}, "table"),
        ({"encode": None}, "encoded"),
        ({"prove": "no"}, "proof"),
        ({"reads": (SliceScores,)}, "does not make"),
    ],
)
def test_an_object_kind_that_is_not_completely_described_is_refused_before_any_work(
    cohort: Path,
    tmp_path: Path,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    message: str,
) -> None:
    monkeypatch.setattr(
        "tests.support.threshold_segmenter.THRESHOLD", replace(THRESHOLD, objects=("seg", "shape_sr", "second_sr"))
    )
    monkeypatch.setattr("tests.runner.test_new_kinds.SECOND_SR", replace(SECOND_SR, **change))  # type: ignore[arg-type]
    register(kinds.GROUP, threshold="tests.support.threshold_segmenter:THRESHOLD")
    register(object_kinds.GROUP, second_sr="tests.runner.test_new_kinds:SECOND_SR")
    with pytest.raises(UsageError, match=message):
        steps.start(cohort, tmp_path / "run", segmenters=["threshold:-600"])
    assert not (tmp_path / "run").exists()
