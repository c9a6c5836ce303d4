"""Doses as a stage of a run: objects, outcomes with reasons, what is done again, and what is resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pydicom
import pytest
from tests.support.cohorts import TINY, result_hashes
from tests.support.treatment_cases import make
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.ledger.reader import LedgerReader
from ctenrich.phantom import PhantomStudy, phantom_dose, write_phantom_dose, write_phantom_study
from ctenrich.records import EncodedObjects, Product, Proof, State
from ctenrich.runner.manifest import forget_stage
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.settings import DosesSettings, Settings
from ctenrich.treatments.files import write_treatments

pytestmark = pytest.mark.long

EXPERT = Product("expert")
METRICS = ("mean", "max", "D2cc", "V20Gy[%]")
WITH_DOSES = Settings(doses=DosesSettings(enabled=True, metrics=METRICS, bounds=False))


class Whole:
    """Two treatments, the offsets of the second one's dose damaged, and a run with doses."""

    def __init__(self, folder: Path) -> None:
        self.studies = [write_phantom_study(folder / "dicom" / f"p{n}", TINY.changed(seed=100 + n)) for n in range(2)]
        doses = [write_phantom_dose(study, spacing=20.0).dose for study in self.studies]
        damaged = pydicom.dcmread(doses[1])
        damaged.GridFrameOffsetVector = [3.0 + offset for offset in damaged.GridFrameOffsetVector]
        damaged.save_as(doses[1])
        self.treatments = folder / "treatments.parquet"
        write_treatments(make(folder / "dicom"), self.treatments)
        self.run = folder / "run"
        self.summary = steps.run_all(self.start(self.run, WITH_DOSES))

    def start(self, out: Path, settings: Settings) -> Run:
        return steps.start(self.treatments, out, segmenters=["expert"], settings=settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("doses"))


@pytest.fixture
def run(whole: Whole, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.run, tmp_path / "run"))


def kinds(store: SeriesStore, uid: str) -> list[str]:
    return [one.kind for one in store.load(EncodedObjects, uid, EXPERT).objects]


def true_mean(study: PhantomStudy, organ: str) -> float:
    """Mean of the dose function at the centres of the voxels of the truth."""
    grid = study.phantom.grid
    k, j, i = np.nonzero(study.phantom.masks[organ])
    points = grid.positions[k] + j[:, None] * grid.along_column + i[:, None] * grid.along_row
    return float(phantom_dose(points, study.phantom.options.carina).mean())


def test_a_dose_becomes_a_proven_object_and_a_bad_one_a_reason(whole: Whole) -> None:
    good, bad = (study.series_instance_uid for study in whole.studies)
    store = SeriesStore(Run.open(whole.run).workspace)
    assert kinds(store, good) == ["seg", "shape_sr", "dose_sr"]
    assert kinds(store, bad) == ["seg", "shape_sr"]
    assert all(store.load(Proof, uid, EXPERT).passed for uid in (good, bad))
    assert whole.summary.exit_code == 0
    with LedgerReader(whole.run / "ledger.sqlite") as ledger:
        ends = {(o.series_instance_uid, o.product): (o.state, o.reason) for o in ledger.outcomes()}
    assert ends == {
        (good, ""): (State.DONE, None),
        (good, "expert"): (State.DONE, None),
        (bad, ""): (State.DONE, None),
        (bad, "expert"): (State.DONE, "DOSE_OFFSETS"),
    }


def test_the_tables_have_the_doses_of_the_phantom(whole: Whole) -> None:
    good, bad = whole.studies
    table = str(whole.run / "tables" / "dose_metrics.parquet")
    question = "select organ, value from read_parquet(?) where metric = 'Mean[Gy]'"
    means = dict(duckdb.execute(question, [table]).fetchall())
    for organ in ("heart", "lung_left", "lung_right"):
        # the dose is interpolated between voxels of 20 mm, the structure in voxels of 10 x 10 x 20 mm
        assert means[organ] == pytest.approx(true_mean(good, organ), rel=0.06), organ
    checks = str(whole.run / "tables" / "dose_checks.parquet")
    rows = duckdb.execute("select SeriesInstanceUID, rule, severity from read_parquet(?)", [checks]).fetchall()
    assert (bad.series_instance_uid, "dose.none", "error") in rows
    sr = str(whole.run / "tables" / "quantitative_measurements.parquet")
    question = "select count(*) from read_parquet(?) where Quantity.CodeValue = '128533'"
    assert duckdb.execute(question, [sr]).fetchall() == [(7,)], "the mean dose of every organ, from the SR"


def test_nothing_is_done_twice(run: Path) -> None:
    before = result_hashes(run)
    assert steps.run_all(Run.open(run)).ran == 0
    uid = SeriesStore(Run.open(run).workspace).series()[0]
    forget_stage(Run.open(run).workspace.product_dir(uid, EXPERT), "dose")
    assert steps.run_all(Run.open(run)).ran == 1, "equal doses: no object is written again"
    assert result_hashes(run) == before


def test_doses_stay_part_of_a_run(run: Path, whole: Whole) -> None:
    made = whole.start(run, Settings())
    assert made.config.settings.doses == WITH_DOSES.doses
    assert steps.run_all(made).ran == 0


def test_doses_of_a_run_that_was_made_without_them(whole: Whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    steps.run_all(whole.start(out, Settings()))
    assert not list(out.glob("series/*/*/objects/dose_sr.dcm"))
    assert not (out / "tables" / "dose_metrics.parquet").exists()
    options = [part for name in METRICS for part in ("--metric", name)]
    result = CliRunner().invoke(app, ["dose", "run", str(out), "--no-bounds", *options])
    assert result.exit_code == 0, result.output
    assert "1 product with doses, 1 without" in result.stdout
    assert "DOSE_OFFSETS" in result.stderr
    assert result_hashes(out) == result_hashes(whole.run)


def test_isodoses_of_a_run(run: Path, whole: Whole) -> None:
    good, bad = (study.series_instance_uid for study in whole.studies)
    options = [part for name in METRICS for part in ("--metric", name)]
    request = ["dose", "run", str(run), "--no-bounds", *options]
    before = result_hashes(run)
    result = CliRunner().invoke(app, [*request, "--isodose", "20", "--isodose", "95%", "--isodose-format", "seg"])
    assert result.exit_code == 0, result.output
    assert "isodoses of 1 series" in result.stdout
    assert [path.stem for path in (run / "isodoses").glob("*")] == [good], f"none of {bad}, whose dose is damaged"
    seg = pydicom.dcmread(run / "isodoses" / f"{good}.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Isodose 20 Gy", "Isodose 57 Gy"]
    assert result_hashes(run) == before, "the run itself is as it was"
    result = CliRunner().invoke(app, [*request, "--isodose", "70"])
    assert result.exit_code == 1
    assert "no voxel of the images has 70 Gy" in result.stderr.replace("\n", " ")
    assert not list((run / "isodoses").glob("*")), "a file of other levels would be taken for these"
    assert CliRunner().invoke(app, [*request, "--isodose", "much"]).exit_code == 2
