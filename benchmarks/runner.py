"""The cohort runner: overlap of fetching and inferring, the forecast after five series, memory of a large series.

    python -m benchmarks.runner [--quick] [--published-network] [overlap] [memory] [scaling]

``overlap``: the fetch is slowed down until it takes as long as the inference; the wall time is compared with the slower
of the two, and the forecast made after five series with the time that the rest then took. ``memory``: one series of
512 x 512 x 600 from DICOM files to valid objects, peak memory by stage; with ``--published-network`` by a network of
Task055's size (31 million parameters, patches of 64 x 192 x 160, random weights; adjacent patches and no mirroring save
time without changing the memory). ``scaling``: 126,000 series on N devices, simulated with the stage times of this
machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tests.support.small_models import v2_dataset, v2_plans, write_v2
from tests.support.storage_servers import FaultyProxy, s3_bucket, s3_put, s3_server

from ctenrich import steps
from ctenrich.ledger.reader import LedgerReader
from ctenrich.phantom import PhantomOptions, write_phantom_study
from ctenrich.records import Cohort
from ctenrich.runner.executors import ExecutorName, open_executor
from ctenrich.runner.forecast import forecast_rest, load_rates, worker_pools
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.runner.simulation import simulate
from ctenrich.select.cohort_file import cohort_table, read_cohort
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.settings import Settings

CHEST = PhantomOptions(rows=160, columns=160, pixel_spacing=(2.5, 2.5), slices=80, slice_spacing=4.0)
MODEL = "nnunet:demo-organs"
PUBLISHED_PRICE = 0.0080
"""US dollars per series in the published study."""


def main() -> int:
    """Run the named parts, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--published-network", action="store_true", help="memory: a network of Task055's size")
    parser.add_argument("parts", nargs="*", choices=[[], "overlap", "memory", "scaling"])
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CTENRICH_MODELS"] = str(Path(folder) / "models")
        for name, part in (("overlap", overlap), ("memory", memory), ("scaling", scaling)):
            if not options.parts or name in options.parts:
                print(f"\n-- {name}", flush=True)
                met &= part(Path(folder) / name, options)
    return 0 if met or options.quick else 1


# ---------------------------------------------------------------- overlap, forecast


def overlap(folder: Path, options: argparse.Namespace) -> bool:
    """Overlap a slow store with a device; targets: 1.15 times the slower of the two, and a forecast within 25 %."""
    count = 7 if options.quick else 16
    local = make_cohort(folder, count)
    undisturbed = steps.start(local, folder / "local", segmenters=[MODEL], allow_demo=True)
    complete_run(undisturbed)
    inferring = stage_seconds(undisturbed)["segment"]
    files = sum(len(e.instances) for e in undisturbed.cohort.series)
    with s3_server() as server:
        remote = serve(local, server, folder / "remote.parquet")
        with FaultyProxy(server, slow(inferring / files)) as proxy:
            fetch = replace(Settings().fetch, s3_endpoint=proxy.url, parallel_objects=1)
            run = steps.start(
                remote, folder / "run", segmenters=[MODEL], allow_demo=True, settings=replace(Settings(), fetch=fetch)
            )
            watch = Forecaster(run, 5)
            wall = complete_run(run, watch)
    spent = stage_seconds(run)
    slower = max(spent["fetch"] + spent["sort"] + spent["convert"], spent["segment"])
    rest = watch.started + wall - watch.at
    error = watch.forecast / rest - 1
    print(f"{count} series: input {spent['fetch']:.1f} s, inferring {spent['segment']:.1f} s, wall {wall:.1f} s")
    print(f"wall / slower of the two: {wall / slower:.2f} (aim 1.15)")
    print(
        f"after five series: {watch.forecast:.1f} s forecast for the rest, it took {rest:.1f} s"
        f" ({error:+.0%}, aim 25 %)"
    )
    return wall / slower <= 1.15 and abs(error) <= 0.25


def make_cohort(folder: Path, count: int) -> Path:
    """Write generated chests, index and select them."""
    for n in range(count):
        write_phantom_study(folder / "dicom" / str(n), replace(CHEST, seed=100 + n))
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    return folder / "cohort.parquet"


def complete_run(run: Run, stop: Any = lambda: False) -> float:
    """Run all stages with one process per pool; wall seconds, including the start of the processes and of the model."""
    executor = open_executor(ExecutorName.PROCESSES, run.root, run.config.settings)
    started = time.monotonic()
    summary = Runner(run, executor, options=RunnerOptions(stop=stop)).run()
    assert summary.exit_code == 0, summary
    return time.monotonic() - started


def stage_seconds(run: Run) -> dict[str, float]:
    """Stage -> wall seconds in total."""
    with LedgerReader(run.ledger_path) as ledger:
        timings = ledger.timings()
    return {stage: sum(t.seconds for t in timings if t.stage == stage) for stage in {t.stage for t in timings}}


def serve(cohort_file: Path, server: str, out: Path) -> Path:
    """Put the cohort's files into a bucket; a cohort that names them there."""
    s3_bucket(server, "slow")
    cohort = read_cohort(cohort_file)
    series = []
    for number, entry in enumerate(cohort.series):
        moved = []
        for k, instance in enumerate(entry.instances):
            s3_put(server, "slow", f"{number}/{k}.dcm", Path(instance.url.removeprefix("file://")).read_bytes())
            moved.append(replace(instance, url=f"s3://slow/{number}/{k}.dcm"))
        series.append(replace(entry, instances=tuple(moved), companions=()))
    pq.write_table(cohort_table(Cohort(cohort.name, tuple(series), cohort_sha256(series))), out)
    return out


def slow(seconds: float) -> Any:
    """Let every object wait."""

    def fault(method: str, path: str, _: int) -> str:
        if method == "GET" and path.partition("?")[0].endswith(".dcm"):
            time.sleep(seconds)
        return ""

    return fault


class Forecaster:
    """Makes the forecast as soon as some series have ended."""

    def __init__(self, run: Run, after: int) -> None:
        self._run, self._after = run, after
        self.forecast, self.at, self.started = 0.0, 0.0, time.monotonic()

    def __call__(self) -> bool:
        """Look; never asks the run to stop."""
        if not self.at and self._run.ledger_path.is_file():
            with LedgerReader(self._run.ledger_path) as ledger:
                ended = sum(not o.product for o in ledger.outcomes())
            found = forecast_rest(self._run) if ended >= self._after else None
            if found is not None:
                self.forecast, self.at = 3600 * found.wall_hours, time.monotonic()
        return False


# ---------------------------------------------------------------- memory


def memory(folder: Path, options: argparse.Namespace) -> bool:
    """One large series end to end; target: below 8 GB in every stage."""
    chest = PhantomOptions(rows=512, columns=512, pixel_spacing=(0.78, 0.78), slices=100 if options.quick else 600)
    chest = replace(chest, slice_spacing=320.0 / chest.slices, rtstruct=True)
    write_phantom_study(folder / "dicom", chest)
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    model, settings = MODEL, Settings()
    if options.published_network:
        model = f"nnunet:{published_network(folder / 'task055')}:mirror=off"
        settings = replace(settings, segment=replace(settings.segment, step_size=1.0))
    run = steps.start(
        folder / "cohort.parquet", folder / "run", segmenters=[model], bodypart="demo-bodypart", allow_demo=True,
        settings=settings,
    )  # fmt: skip
    complete_run(run)
    with LedgerReader(run.ledger_path) as ledger:
        timings = ledger.timings()
    print(f"{chest.slices} slices of 512 x 512\n{'stage':12}{'product':36}{'s':>8}{'peak MB':>10}")
    for t in timings:
        print(f"{t.stage:12}{t.product[:34]:36}{t.seconds:8.1f}{t.peak_memory / 1e6:10.0f}")
    return max(t.peak_memory for t in timings) < 8e9


def published_network(folder: Path) -> Path:
    """A model folder of nnU-Net v2 with a network of the size of Task055's, random weights."""
    plans = v2_plans(
        configuration={"patch_size": [64, 192, 160], "spacing": [2.5, 0.8945, 0.8945]},
        image_reader_writer="SimpleITKIO",
    )
    shape = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    shape |= {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "kernel_sizes": [[1, 3, 3], *[[3, 3, 3]] * 5],
        "strides": [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 4],
        "n_conv_per_stage": [2] * 6,
        "n_conv_per_stage_decoder": [2] * 5,
    }
    labels = {"background": 0, "esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}
    return write_v2(folder, plans, v2_dataset(labels))


# ---------------------------------------------------------------- scaling


def scaling(_: Path, options: argparse.Namespace) -> bool:
    """126,000 series of 200 slices on N devices: hours, busy share, and the price per series at given prices."""
    rates, count, slices = load_rates(), 2000 if options.quick else 126_000, 200
    kind = "nnunet"
    pools = (
        ("input", ("fetch", "sort", "convert")),
        ("infer", ("segment",)),
        ("output", ("measure", "encode", "validate")),
    )
    seconds = {pool: slices * sum(rates.of(stage, kind) for stage in names) for pool, names in pools}
    print(
        f"seconds a series of {slices} slices ({rates.source}): "
        + ", ".join(f"{k} {v:.2f}" for k, v in seconds.items())
    )
    times = [(seconds["input"], seconds["infer"], seconds["output"])] * count
    print(f"{'devices':>8}{'input':>7}{'output':>8}{'hours':>10}{'busy':>7}{'device hours':>14}{'dearest hour':>21}")
    for devices in (1, 4, 16, 64):
        here = replace(
            worker_pools(Settings().run), infer=devices, input=workers(seconds, "input", devices),
            output=workers(seconds, "output", devices),
        )  # fmt: skip
        found = simulate(times, here)
        hours = found.seconds / 3600
        price = PUBLISHED_PRICE * count / (hours * devices)
        row: Sequence[Any] = (devices, here.input, here.output, hours, found.device_busy, hours * devices, price)
        print("{:8}{:7}{:8}{:10.1f}{:7.0%}{:14.0f}{:21.3f}".format(*row))
    print(f"(dearest device hour: the price at which a series costs the published ${PUBLISHED_PRICE:.4f})")
    return True


def workers(seconds: dict[str, float], pool: str, devices: int) -> int:
    """Workers that keep the devices busy."""
    return max(1, -(-int(1000 * seconds[pool] * devices) // max(1, int(1000 * seconds["infer"]))))


if __name__ == "__main__":
    sys.exit(main())
