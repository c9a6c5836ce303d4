"""The forecast: pools that overlap, rates that are learned, and what is left after five series."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.inference.registry import registry
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.rows import StageTiming
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Instance, Outcome, ProductKind, SeriesEntry, State
from ctenrich.runner.device_rates import DEFAULT_DEVICE, device_rates, rates_of_device
from ctenrich.runner.forecast import Prices, Rates, forecast, forecast_rest, learn_rates, load_rates, save_rates
from ctenrich.runner.run import Run
from ctenrich.runner.simulation import WorkerPools, simulate
from ctenrich.select.cohort_file import cohort_table, sizes_of
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.settings import RunSettings, Settings
from ctenrich.stages.order import SERIES_STAGES, product_stages

TIMES = st.lists(st.tuples(*[st.floats(0.001, 100.0)] * 3), min_size=1, max_size=30)


def test_lanes_overlap_and_the_slowest_sets_the_pace() -> None:
    found = simulate([(1.0, 4.0, 2.0)] * 10, WorkerPools())
    assert found.seconds == pytest.approx(1 + 10 * 4 + 2)
    assert found.device_busy == pytest.approx(40 / 43)
    assert simulate([(1.0, 4.0, 2.0)] * 10, WorkerPools(infer=2)).seconds == pytest.approx(
        1 + 5 * 4 + 2 + 2
    )  # one output
    assert simulate([(1.0, 4.0, 2.0)] * 10, None).seconds == 70


def test_a_slow_input_lane_starves_the_device() -> None:
    found = simulate([(8.0, 1.0, 1.0)] * 5, WorkerPools())
    assert found.seconds == pytest.approx(42)
    assert found.device_busy == pytest.approx(5 / 42)


@given(TIMES, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_never_faster_than_any_lane_nor_slower_than_one_after_another(
    times: list[tuple[float, float, float]], a: int, b: int, c: int
) -> None:
    found = simulate(times, WorkerPools(a, b, c)).seconds
    assert found <= sum(sum(one) for one in times) * (1 + 1e-9)
    for pool, workers in enumerate((a, b, c)):
        assert found >= sum(one[pool] for one in times) / workers * (1 - 1e-9)


def cohort_of(counts: list[int]) -> Cohort:
    series = tuple(
        SeriesEntry(
            collection_id="c", patient_id=str(n), study_instance_uid=f"1.{n}", series_instance_uid=f"1.{n}.1",
            instances=tuple(Instance(f"1.{n}.1.{k}", f"s3://b/{n}/{k}.dcm", 500_000) for k in range(count)),
            expected_instances=count,
        )
        for n, count in enumerate(counts)
    )  # fmt: skip
    return Cohort("c", series, cohort_sha256(series))


def test_time_disk_and_cost_of_a_cohort() -> None:
    rates = Rates({"fetch": 0.01, "sort": 0.0, "convert": 0.01, "segment:nnunet": 0.1, "measure:nnunet": 0.01,
                   "encode:nnunet": 0.01, "validate:nnunet": 0.03}, "this machine")  # fmt: skip
    products = [(ProductKind.NNUNET, "nnunet:m")]
    found = forecast(sizes_of(cohort_of([100, 300])), products, rates, prices=Prices(3.6, 1.0), pools=WorkerPools())
    assert (found.series, found.slices) == (2, 400)
    assert found.gigabytes == pytest.approx(0.2)
    # 100 slices: 2, 10, 5 s; 300 slices: 6, 30, 15 s. The device works from 2 to 12 and from 12 to 42.
    assert found.wall_hours * 3600 == pytest.approx(42 + 15)
    assert found.device_hours * 3600 == pytest.approx(40)
    assert found.cost == pytest.approx(57 / 3600 * 3.6 + 0.2)


def timing(uid: str, product: str, stage: str, seconds: float) -> StageTiming:
    return StageTiming(
        series_instance_uid=uid, product=product, stage=stage, seconds=seconds, cpu_seconds=seconds, peak_memory=0
    )


def test_the_series_that_opened_the_models_does_not_set_the_rate() -> None:
    timings = [timing("1.0.1", "", "convert", 9.0), *(timing(f"1.{n}.1", "", "convert", 1.0) for n in range(1, 5))]
    found = learn_rates(timings, {f"1.{n}.1": 100 for n in range(5)})
    assert found.of("convert") == pytest.approx(0.01)


def test_a_demonstration_model_says_nothing_about_a_real_one() -> None:
    demo, mine = "nnunet:demo-organs:3d_fullres:0:mirror", "nnunet:mine:3d_fullres:0:mirror"
    slices = {"1.0.1": 100}
    untaught = Rates({}, "reference figures").of("segment", "nnunet:other")
    after_demo = learn_rates([timing("1.0.1", demo, "segment", 0.1)], slices, "this machine")
    assert after_demo.of("segment", "nnunet:demo-organs") == pytest.approx(0.001)
    assert after_demo.of("segment", "nnunet:other") == untaught > 0.1
    both = learn_rates([timing("1.0.1", name, "segment", s) for name, s in ((demo, 0.1), (mine, 50.0))], slices)
    assert both.of("segment", "nnunet:mine") == both.of("segment", mine) == pytest.approx(0.5)
    assert both.of("segment", "nnunet:other") == pytest.approx(0.5), "a model of the same kind is the next best guess"


def test_the_forecast_says_which_models_were_never_timed() -> None:
    rates = learn_rates([timing("1.0.1", "nnunet:mine:2d:0:mirror", "segment", 9.0)], {"1.0.1": 9}, "this machine")
    products = [(ProductKind.NNUNET, "nnunet:mine"), (ProductKind.NNUNET, "nnunet:other")]
    known, both = (forecast(sizes_of(cohort_of([10])), products[:n], rates).source for n in (1, 2))
    assert known == "this machine"
    assert "nnunet:other" in both
    assert "nnunet:mine" not in both
    assert forecast(sizes_of(cohort_of([10])), products, Rates({}, "reference figures")).source == "reference figures"


def test_rates_of_a_device_serve_until_this_machine_has_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shipped = load_rates()
    assert shipped.source.startswith("measured on two cores")
    assert shipped.of("convert") == rates_of_device(DEFAULT_DEVICE).seconds["convert"]
    assert "nnunet:m" in forecast(sizes_of(cohort_of([10])), [("nnunet", "nnunet:m")], shipped).source, "a guess"
    save_rates(Rates({"convert": 5.0}, "this machine"))
    assert load_rates().of("convert") == 5.0
    assert load_rates("cpu-2") == shipped
    with pytest.raises(UsageError) as caught:
        load_rates("cpu2")
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert "cpu-2" in (caught.value.hint or "")


def test_measured_rates_name_stages_and_kinds_that_exist() -> None:
    for found in device_rates().values():
        assert found.device
        assert found.source
        for key, seconds in found.seconds.items():
            stage, _, kind = key.partition(":")
            assert stage in (product_stages(kind) if kind else SERIES_STAGES), key
            assert 0 < seconds < 10


@pytest.mark.parametrize("seed", range(20))
def test_after_five_series_the_rest_is_known_within_a_quarter(tmp_path: Path, seed: int) -> None:
    """Stage times that scatter by a fifth, pools of a real run's settings, a first series that opens the models."""
    import pyarrow.parquet as pq

    rng = random.Random(seed)
    cohort = cohort_of([rng.randint(60, 400) for _ in range(60)])
    pq.write_table(cohort_table(cohort), tmp_path / "cohort.parquet")
    settings = Settings(run=RunSettings(output_workers=2))
    run = steps.start(tmp_path / "cohort.parquet", tmp_path / "run", segmenters=["expert"], settings=settings)
    rates = {"fetch": 0.01, "sort": 0.004, "convert": 0.01, "segment": 0.05, "measure": 0.02, "encode": 0.03}
    rates["validate"] = 0.04
    pools = {"input": ("fetch", "sort", "convert"), "infer": ("segment",), "output": ("measure", "encode", "validate")}
    true, first = [], {}
    for number, entry in enumerate(cohort.series):
        spent = {s: r * len(entry.instances) * rng.uniform(0.8, 1.2) for s, r in rates.items()}
        if number < 5:
            first[entry.series_instance_uid] = spent | ({"segment": spent["segment"] + 8.0} if number == 0 else {})
        else:
            true.append(tuple(sum(spent[s] for s in names) for names in pools.values()))
    write_ledger(run, first)
    found = forecast_rest(run)
    assert found is not None
    assert found.series == 55
    assert found.wall_hours * 3600 == pytest.approx(simulate(true, WorkerPools(1, 1, 2)).seconds, rel=0.25)


def write_ledger(run: Run, spent: dict[str, dict[str, float]]) -> None:
    """What a runner would have written for these series."""
    with Ledger(run.ledger_path) as ledger:
        ledger.set_plan(run.jobs())
        ledger.start_run("run", "0", "processes")
        for uid, stages in spent.items():
            for stage, seconds in stages.items():
                product = "" if stage in ("fetch", "sort", "convert") else "expert"
                ledger.add_timings(timing(uid, product, stage, seconds))
            ledger.record(Outcome(uid, "", State.DONE, "validate", None, "", 1.0, 0))


def test_before_the_first_series_has_ended_there_is_no_forecast(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(cohort_table(cohort_of([10, 20])), tmp_path / "cohort.parquet")
    run = steps.start(tmp_path / "cohort.parquet", tmp_path / "run", segmenters=["expert"])
    write_ledger(run, {})
    assert forecast_rest(run) is None
    assert replace(steps.status(run)).hours_left is None


def test_the_plan_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(cohort_table(cohort_of([100] * 50)), tmp_path / "cohort.parquet")
    cells = ["plan", str(tmp_path / "cohort.parquet"), "--segmenter", "expert", "--price-per-hour", "1"]
    texts = []
    for devices in ("1", "2"):
        with pytest.raises(SystemExit) as ended:
            app([*cells, "--devices", devices, "--input-workers", "8", "--output-workers", "8"])
        assert not ended.value.code
        texts.append(capsys.readouterr().out)
    hours = [float(t.split(" h in total")[0].rsplit("\n", 1)[-1].split()[-1]) for t in texts]
    assert "50 series, 5000 slices" in texts[0]
    assert hours[1] <= hours[0]


def test_a_model_whose_axes_nothing_states_is_refused_when_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    pq.write_table(cohort_table(cohort_of([100] * 5)), tmp_path / "cohort.parquet")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "plans.json").write_text('{"image_reader_writer": "SimpleITKIO"}')
    codes = []
    for more in ("", ":axes=RAS"):
        with pytest.raises(SystemExit) as ended:
            app(["plan", str(tmp_path / "cohort.parquet"), "--segmenter", f"nnunet:{tmp_path / 'm'}{more}"])
        codes.append(ended.value.code or 0)
    assert codes == [1, 0]
    assert "UNKNOWN_AXES" in capsys.readouterr().err


def test_the_plan_names_the_terms_of_data_and_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(cohort_table(cohort_of([100] * 5)), tmp_path / "cohort.parquet")
    (tmp_path / "settings.toml").write_text("[fetch]\ndelete_after_use = true\n")
    models = ["--segmenter", "nnunet:Task055_SegTHOR", "--segmenter", f"nnunet:{tmp_path}", "--bodypart", "bpr"]
    texts = []
    for more in ([], ["--settings", str(tmp_path / "settings.toml")]):
        with pytest.raises(SystemExit) as ended:
            app(["plan", str(tmp_path / "cohort.parquet"), *models, *more])
        assert not ended.value.code
        texts.append(" ".join(capsys.readouterr().out.split()))
    entry = registry()["Task055_SegTHOR"]
    assert entry.licence == "CC-BY-NC-4.0"
    assert entry.licence in texts[0]
    assert f"cite: {entry.citation}" in texts[0]
    assert f"cite: {registry()['bpr'].citation}" in texts[0]
    assert "not in the registry" in texts[0]
    disk = [float(t.split("up to ")[1].split(" GB of disk")[0]) for t in texts]
    assert disk[1] <= disk[0]
