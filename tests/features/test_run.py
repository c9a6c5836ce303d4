"""Feature vectors in a run: stage, table, resumption, identity of the model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest

from ctenrich import steps
from ctenrich.errors import ModelError
from ctenrich.features.kinds import open_features
from ctenrich.features.measure import RequestedFeatures, measure_features
from ctenrich.features.vectors import floats_sha256, load_vectors
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import FeatureVectors, ModelInfo, Product, Proof
from ctenrich.report.data import load_cohort, open_tables
from ctenrich.results.query import run_query
from ctenrich.results.tables import build_tables
from ctenrich.runner.creation import create_run
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.settings import FeaturesSettings, SegmentSettings, Settings
from ctenrich.workspace import Workspace, load_array
from tests.support.cohorts import make_cohort, result_hashes
from tests.support.feature_models import CENTROID, VOLUME, torchscript_model

EXPERT = Product("expert")
STAGES = (steps.fetch, steps.sort, steps.convert, steps.segment, steps.features)


def settings_of(*models: Path) -> Settings:
    return Settings(
        segment=SegmentSettings(device="cpu", threads=1),
        features=FeaturesSettings(models=tuple(f"deep:{model}" for model in models)),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return torchscript_model(folder / "organs"), torchscript_model(folder / "chest", crop=VOLUME)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, models: tuple[Path, Path]) -> Run:
    """A run of two series with both models, and their vectors."""
    folder = tmp_path_factory.mktemp("features")
    cohort = make_cohort(folder, 2)
    made = steps.start(cohort, folder / "run", segmenters=["expert"], settings=settings_of(*models))
    for stage in STAGES:
        assert stage(made)
    build_tables(made.workspace)
    return made


def vectors_of(run: Run, number: int = 0) -> FeatureVectors:
    store = SeriesStore(run.workspace)
    return store.load(FeatureVectors, store.series()[number], EXPERT)


@pytest.mark.long
def test_every_segment_has_a_vector_and_the_volume_one(run: Run) -> None:
    found = vectors_of(run)
    masks = SeriesStore(run.workspace).masks(found.series_instance_uid, EXPERT)
    organs, chest = found.models
    assert [v.name for v in organs.vectors] == [s.name for s in masks.segments if not s.absent]
    assert [(v.number, v.name) for v in chest.vectors] == [(None, "")]
    assert (organs.spec, organs.model.name, organs.length) == ("deep:organs", "small", 6)
    values = load_vectors(organs, found.series_instance_uid, run.workspace)
    assert values is not None
    assert [floats_sha256(v) for v in values] == [v.sha256 for v in organs.vectors]
    assert organs.vectors[0].norm == pytest.approx(float(np.linalg.norm(values[0].astype(float))))


@pytest.mark.long
def test_vectors_become_a_proven_report_and_nothing_else_changes(run: Run, tmp_path: Path) -> None:
    """The whole run: every vector in the SR and its tables; the other objects are those of a run without features."""
    copy = Run.open(shutil.copytree(run.root, tmp_path / "run"))
    assert steps.run_all(copy).exit_code == 0
    plain = steps.start(run.root / "cohort.parquet", tmp_path / "plain", segmenters=["expert"])
    assert steps.run_all(plain).exit_code == 0
    with_features, without = result_hashes(copy.root), result_hashes(plain.root)
    own = {name for name in with_features if name.endswith("/features_sr.dcm")}
    assert len(own) == 2
    assert not any("features" in name for name in without)
    objects = {name: value for name, value in without.items() if name.endswith(".dcm")}
    assert {
        name: value for name, value in with_features.items() if name.endswith(".dcm") and name not in own
    } == objects
    found = vectors_of(copy)
    store = SeriesStore(copy.workspace)
    uid = found.series_instance_uid
    proof = store.load(Proof, uid, EXPERT)
    assert proof.passed
    assert {c.name for c in proof.checks} >= {f"features_sr.{n}" for n in ("groups", "values", "places", "arrays")}
    question = (
        "SELECT q.valueFloat, d.norm FROM quantitative_measurements q JOIN deep_features d"
        " ON d.SeriesInstanceUID = q.sourceSegmentedSeriesUID AND d.segment_number = q.segmentationSegmentNumber"
        " WHERE q.Quantity.CodeValue = 'FEATURE_NORM'"
    )
    norms = steps.query(copy, question).to_pylist()
    assert len(norms) == sum(len(vectors_of(copy, number).models[0].vectors) for number in (0, 1))
    assert all(row["valueFloat"] == row["norm"] for row in norms)
    path = copy.workspace.resolve(
        uid, next(o.path for o in store.objects(uid, EXPERT).objects if o.kind == "features_sr")
    )
    report = highdicom.sr.srread(path).content
    assert len(report.get_volumetric_roi_measurement_groups()) == len(found.models[0].vectors)
    assert len(report.get_image_measurement_groups()) == 1, "that of the volume"
    assert steps.run_all(copy).ran == 0
    with open_tables(copy.workspace) as db:
        compared = {row["quantity"] for row in load_cohort(copy.workspace, db).quantities}
    assert compared, "shape is compared between series"
    assert not any("feature vector" in name for name in compared), "norms of several networks are not one quantity"


@pytest.mark.long
def test_the_halves_of_a_box_are_those_of_the_patient(run: Run) -> None:
    """The first value is the mean of the patient's left half of the box, by the slices' own positions."""
    found = vectors_of(run)
    store = SeriesStore(run.workspace)
    uid = found.series_instance_uid
    volume, masks = store.volume(uid), store.masks(uid, EXPERT)
    heart = next(s for s in masks.segments if s.name == "heart")
    array = np.asarray(load_array(run.workspace.resolve(uid, volume.array_path)), float)
    affine = np.asarray(volume.affine_lps)
    centre = affine @ [*np.mean(np.nonzero(full_mask(masks, heart.number, run.workspace)), axis=1)[::-1], 1]
    grid = np.stack(np.meshgrid(*[np.linspace(-h, h, n) for h, n in ((44, 12), (36, 10), (42, 8))], indexing="ij"), -1)
    points = centre[:3] + grid * [-1, -1, 1]  # x to the right, y to the front
    index = np.concatenate((points, np.ones_like(points[..., :1])), -1) @ np.linalg.inv(affine).T
    nearest = np.rint(index[..., 2::-1]).astype(int)
    hu = np.clip(array[tuple(np.moveaxis(nearest, -1, 0))], -1000, 400)
    wanted = (hu + 1000) / 1400
    values = load_vectors(found.models[0], uid, run.workspace)
    assert values is not None
    row = [v.name for v in found.models[0].vectors].index("heart")
    left_right = values[row][:2]
    assert left_right == pytest.approx([wanted[:6].mean(), wanted[6:].mean()], abs=0.05)
    assert abs(wanted[:6].mean() - wanted[6:].mean()) > 0.06, "the halves differ enough to tell sides apart"


@pytest.mark.long
def test_the_table_has_the_vectors(run: Run) -> None:
    rows = steps.query(run, "SELECT * FROM deep_features ORDER BY SeriesInstanceUID, features, segment").to_pylist()
    found = vectors_of(run)
    own = [r for r in rows if r["SeriesInstanceUID"] == found.series_instance_uid]
    assert len(rows) == 2 * len(own) == 2 * (len(found.models[0].vectors) + 1)
    chest = next(r for r in own if r["features"] == "deep:chest")
    assert (chest["segment"], chest["segment_number"], chest["length"]) == (None, None, 6)
    assert chest["crop"] == "volume 16x16x8 voxels, RAS, above -900 HU, area"
    values = load_vectors(found.models[1], found.series_instance_uid, run.workspace)
    assert values is not None
    assert np.float32(chest["vector"]).tobytes() == values[0].tobytes()
    assert chest["model_sha256"] == found.models[1].model.sha256


@pytest.mark.long
def test_a_vector_that_was_changed_is_not_in_the_table(run: Run, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(run.root, tmp_path / "run"))
    found = vectors_of(run)
    path = copy.resolve(found.series_instance_uid, found.models[1].array_path)
    values = np.load(path)
    values[0, 0] += 1
    np.save(path, values)
    build_tables(copy)
    rows = run_query(copy, "SELECT * FROM deep_features WHERE features = 'deep:chest'").to_pylist()
    assert [r["SeriesInstanceUID"] for r in rows] == [vectors_of(run, 1).series_instance_uid]


@pytest.mark.long
def test_done_vectors_are_kept_and_a_new_model_is_added(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    before = vectors_of(run)
    path = run.workspace.resolve(before.series_instance_uid, before.models[0].array_path)
    stamp = path.stat().st_mtime_ns
    again = create_run(run.root / "cohort.parquet", run.root, settings=settings_of())
    assert again.config.settings.features == run.config.settings.features, "models of a run stay"
    steps.features(again)
    assert path.stat().st_mtime_ns == stamp
    added = torchscript_model(tmp_path / "third", crop=CENTROID.replace("8.0, 8.0, 12.0", "4.0, 4.0, 6.0"))
    more = create_run(run.root / "cohort.parquet", run.root, settings=settings_of(added))
    steps.features(more)
    assert [m.spec for m in vectors_of(more).models] == ["deep:organs", "deep:chest", "deep:third"]
    assert vectors_of(more).models[:2] == before.models


@pytest.mark.long
def test_a_model_that_has_changed_is_refused(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    folder = torchscript_model(tmp_path / "m")
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings_of(folder))
    torchscript_model(folder, crop=CENTROID.replace("12.0]", "13.0]"))
    with pytest.raises(ModelError) as caught:
        create_run(cohort, run.root, settings=settings_of())
    assert caught.value.reason is Reason.HASH_MISMATCH


@pytest.mark.long
def test_a_vector_of_the_volume_is_made_once_for_all_products(run: Run, models: tuple[Path, Path]) -> None:
    found = vectors_of(run)
    uid = found.series_instance_uid
    store = SeriesStore(run.workspace)
    spec = run.config.settings.features.models[1]
    model = open_features(spec, run.config.settings)
    calls: list[int] = []

    class Counting:
        info, crop, length, structures = model.info, model.crop, model.length, model.structures

        def vector(self, data: np.ndarray) -> np.ndarray:
            calls.append(1)
            return model.vector(data)

    other = replace(store.masks(uid, EXPERT), product=Product("nnunet", "other"))
    requested = (RequestedFeatures(spec=spec, model=Counting()),)
    made = measure_features(other, store.volume(uid), requested, workspace=run.workspace)
    assert not calls, "the expert's record has it"
    assert made.models[0].vectors == found.models[1].vectors
    changed = replace(store.volume(uid), sha256="0" * 64)
    measure_features(other, changed, requested, workspace=run.workspace)
    assert calls == [1], "of another volume it is made anew"


@pytest.mark.long
def test_values_that_are_not_finite_are_left_out(run: Run) -> None:
    store = SeriesStore(run.workspace)
    uid = store.series()[0]

    class Broken:
        info = ModelInfo("broken", "1", "ab" * 32)
        length, structures = 2, ("heart",)

        def __init__(self) -> None:
            self.crop = open_features(run.config.settings.features.models[0], run.config.settings).crop

        def vector(self, data: np.ndarray) -> np.ndarray:
            return np.array([1.0, np.nan], np.float32)

    masks = replace(store.masks(uid, EXPERT), product=Product("nnunet", "broken"))
    requested = (RequestedFeatures(spec=run.config.settings.features.models[0], model=Broken()),)
    made = measure_features(masks, store.volume(uid), requested, workspace=run.workspace)
    assert made.models[0].vectors == ()
    assert made.models[0].omitted["heart"] == "the network returned values that are not finite"
    assert {r for n, r in made.models[0].omitted.items() if n != "heart"} == {"the model is not for this structure"}
    assert [i.rule for i in made.issues] == ["features.not_finite"]
