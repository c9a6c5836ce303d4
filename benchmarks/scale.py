"""A run of a hundred thousand series: what opening, status, retry, plan and resuming take, in seconds and memory.

    python -m benchmarks.scale [--quick] [--series N] [--slices N]
    python -m benchmarks.scale --workers 100 [--series N]

The cohort is generated metadata: no image exists. The ledger has an outcome, timings and issues for every series and
product but those of one series, as after a run that was stopped before its last series. Each step is a process of its
own; memory is the largest resident memory of that process, with Python and the libraries. ``resume`` ends when the
first job is submitted; ``runner`` passes some thousand series through the scheduler with workers that answer at once.

``--workers`` runs a cohort on a cluster of Ray on this machine instead, see :mod:`benchmarks.ray_cluster`: that many
workers that wait 0.2 s for every job, on four nodes, of which one is lost every 20 s, three times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tests.support.runner_cases import FakeExecutor, timing

from ctenrich import steps
from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.database import Database
from ctenrich.ledger.ledger import Ledger
from ctenrich.records import Instance, Product, ProductKind, SeriesEntry, State
from ctenrich.runner.creation import run_format
from ctenrich.runner.forecast import Rates, forecast
from ctenrich.runner.job import Job
from ctenrich.runner.run import Run, RunConfig
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.runner.simulation import WorkerPools
from ctenrich.select.cohort_file import read_cohort, sizes_of, uids_of, write_cohort_table
from ctenrich.settings import Settings
from ctenrich.stages.order import SERIES_STAGES, product_stages
from ctenrich.workspace import save_record

PRODUCTS = (
    *(RequestedProduct(f"nnunet:m{n}", Product(ProductKind.NNUNET, f"m{n}")) for n in range(3)),
    RequestedProduct("expert", Product(ProductKind.EXPERT)),
    RequestedProduct("b", Product(ProductKind.BODYPART, "b")),
)


def entries(count: int, slices: int) -> Iterator[SeriesEntry]:
    """Series as a cohort of IDC has them: UIDs of 64 characters, an address and a checksum for every instance."""
    for number in range(count):
        uid = f"1.3.6.1.4.1.14519.5.2.1.7009.9004.{number:030d}"
        instances = tuple(
            Instance(
                f"{uid[:54]}.{k:09d}",
                f"gs://idc-open-data/{number:08x}-0000-4000-8000-000000000000/{k:08x}-1111-4000-8000-000000000000.dcm",
                526_000 + k,
                hashlib.md5(f"{number}{k}".encode(), usedforsecurity=False).hexdigest(),
            )
            for k in range(slices)
        )
        yield SeriesEntry(
            f"collection{number % 40}",
            f"P{number // 2}",
            uid[:50],
            uid,
            instances=instances,
            license_short_name="CC BY 4.0",
            source_doi=f"10.7937/{number % 40}",
            expected_instances=slices,
        )


def write(folder: Path, count: int, slices: int) -> None:
    """Write the cohort file, and the run's folder around it."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[SeriesEntry]:
        for entry in entries(count, slices):  # already in the order of their UIDs
            digest.update(f"S {entry.series_instance_uid}\n".encode())
            for instance in entry.instances:
                digest.update(f"I {instance.sop_instance_uid}\n".encode())
            yield entry

    run = folder / "run"
    run.mkdir(parents=True)
    sha256 = "0" * 64
    write_cohort_table(run / "cohort.parquet", "scale", sha256, hashed())
    chosen = run_format(count, Settings().run)
    save_record(run / "run.json", RunConfig(chosen, "0.1.0", "scale", sha256, PRODUCTS, Settings()))


def fill_ledger(folder: Path) -> None:
    """Record an outcome, the timings and an issue for all series but the last one."""
    run = Run.open(folder / "run")
    with run.planned_jobs() as jobs, Ledger(run.ledger_path) as ledger:
        ledger.set_plan(jobs)
        uids = uids_of(run.cohort)[:-1]
    with Database(run.ledger_path, read_only=False) as database, database.transaction() as db:
        for uid in uids:
            for product in run.product_names:
                kind = product.partition(":")[0]
                stages = product_stages(ProductKind(kind)) if kind else SERIES_STAGES
                db.execute("INSERT INTO outcomes VALUES (?, ?, 'done', 'validate', '', '', 1.0, 1000)", (uid, product))
                db.executemany(
                    "INSERT INTO timings VALUES (?, ?, ?, 1, 1.5, 1.2, 900000000, 'w', 1.0)",
                    [(uid, product, stage) for stage in stages],
                )
            db.execute(
                "INSERT INTO issues VALUES (?, '', 'sort', 'sort.note', 'warning', '', 'a note', 'ctenrich', '0')",
                (uid,),
            )
        failed = uids[:: max(1, len(uids) // 100)]
        db.executemany(
            "UPDATE outcomes SET state = 'failed', reason = 'CHECKSUM' WHERE series_instance_uid = ? AND product = ''",
            [(uid,) for uid in failed],
        )


def check(folder: Path) -> None:
    """Open the run for the first time: all values of the cohort file are checked."""
    Run.open(folder / "run")


def opened(folder: Path) -> None:
    """Open the run again."""
    assert len(Run.open(folder / "run").cohort.series)


def status(folder: Path) -> None:
    """``ctenrich status``."""
    found = steps.status(Run.open(folder / "run"))
    assert dict(found.states)["no outcome yet"] == len(PRODUCTS) + 1


def retry(folder: Path) -> None:
    """``ctenrich retry`` of about a hundred failures."""
    assert steps.retry(Run.open(folder / "run"), [])


def plan(folder: Path) -> None:
    """``ctenrich plan``: all values of the cohort file are checked."""
    names = [(p.product.kind, str(p.product)) for p in PRODUCTS]
    sizes = sizes_of(read_cohort(folder / "run" / "cohort.parquet"))
    assert forecast(sizes, names, Rates({}, "reference figures"), pools=WorkerPools(4, 4, 4)).slices


class _FirstJobError(Exception):
    """The first job was submitted."""


class _StopsAtFirstJob(FakeExecutor):
    def submit(self, job: Job) -> None:
        raise _FirstJobError(job.key.series_instance_uid)


def resume(folder: Path) -> None:
    """Resume the run until the first job is submitted: that of the series that has no outcome."""
    run = Run.open(folder / "run")
    last = uids_of(run.cohort)[-1]
    try:
        Runner(run, _StopsAtFirstJob()).run()
    except _FirstJobError as first:
        found = str(first)
    assert found == last, found


class _AnswersAtOnce(FakeExecutor):
    def submit(self, job: Job) -> None:
        self.queue.append(job)


def runner(folder: Path) -> None:
    """Pass series through the scheduler; their stages take no time."""
    run = Run.open(folder / "part")
    summary = Runner(run, _AnswersAtOnce(slots=12), options=RunnerOptions()).run()
    assert summary.states[State.DONE.value] == run.number_of_jobs, summary
    assert timing


def cluster(folder: Path, workers: int) -> None:
    """Run the series on a cluster of this machine with nodes that are lost, and print what it took."""
    from benchmarks.ray_cluster import ClusterPlan, simulate_cluster

    found = simulate_cluster(Run.open(folder / "part"), ClusterPlan(workers=workers, losses=3, lose_every=20))
    assert found.states[State.DONE.value] == found.series * (len(PRODUCTS) + 1), found
    assert found.most_in_flight <= workers, found
    print(f"{found.series} series, {found.jobs} jobs, {workers} workers; at most {found.most_in_flight} jobs in flight")
    print(f"{found.nodes_lost} nodes lost, {found.again} jobs of theirs done by others, all series done")
    print(
        f"driver: {found.cpu:.1f} s of CPU in {found.seconds:.0f} s, {1000 * found.cpu / found.series:.1f} ms a series"
    )
    print(f"driver: at most {found.megabytes:.0f} MB; {found.objects} objects in the object stores at the end")


STEPS: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    ("ledger", fill_ledger, "ledger filled"),
    ("open first", check, "opened for the first time"),
    ("open", opened, "opened again"),
    ("status", status, "status"),
    ("plan", plan, "plan"),
    ("resume", resume, "resume to the first job"),
    ("retry", retry, "retry"),
    ("runner", runner, "3,000 passed through the scheduler"),
)


def measure(step: str, folder: Path, *options: str) -> dict[str, Any]:
    """Run one step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, "--folder", str(folder), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_step(step: str, folder: Path, count: int, slices: int) -> None:
    """Run a step here and print what it took."""
    cpu, started = time.process_time(), time.monotonic()
    if step == "write":
        write(folder, count, slices)
    else:
        {name: function for name, function, _ in STEPS}[step](folder)
    found = {
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }
    print(json.dumps(found))


def make_part(folder: Path, count: int, slices: int = 20, settings: Settings | None = None) -> None:
    """A run of the first series, for the scheduler."""
    run = folder / "part"
    run.mkdir()
    write_cohort_table(run / "cohort.parquet", "part", "0" * 64, islice(entries(count, slices), count))
    save_record(run / "run.json", RunConfig(1, "0.1.0", "part", "0" * 64, PRODUCTS, settings or Settings()))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6,000 series of 50 slices")
    parser.add_argument("--series", type=int, help="number of series (126,000)")
    parser.add_argument("--slices", type=int, help="slices per series (200)")
    parser.add_argument("--workers", type=int, help="run 1,500 series on a cluster of Ray with this number of workers")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    count = options.series or (6_000 if options.quick else 126_000)
    slices = options.slices or (50 if options.quick else 200)
    if options.step:
        run_step(options.step, options.folder, count, slices)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.workers:
            from benchmarks.ray_cluster import pool_settings

            make_part(folder, options.series or 1_500, 200, pool_settings(options.workers))
            cluster(folder, options.workers)
            return
        print(f"{count} series x {slices} instances, {len(PRODUCTS)} products")
        print(f"{'step':34}{'seconds':>9}{'CPU':>9}{'MB':>9}")
        sizes = ["--series", str(count), "--slices", str(slices)]
        rows = [("write", "cohort written"), *((name, text) for name, _, text in STEPS)]
        for step, text in rows:
            if step == "runner":
                make_part(folder, 3_000)
            found = measure(step, folder, *sizes)
            print(f"{text:34}{found['seconds']:9.2f}{found['cpu']:9.2f}{found['megabytes']:9.0f}", flush=True)
            if step == "write":
                size = (folder / "run" / "cohort.parquet").stat().st_size / 1e6
                print(f"{'':34}the file has {size:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
