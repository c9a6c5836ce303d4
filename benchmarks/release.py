"""Release and verification of a run of many series: processor time and largest memory, each in a process of its own.

    python -m benchmarks.release [--series 20000 ...] [--keep FOLDER]

The run is generated: tables, records and objects of a hundred series, again and again under other UIDs; the objects
are links to those of the hundred, of some kilobytes each, and nothing is flushed to the disk. A series has an
accepted product with two objects and one that is left out. A second release is compared with the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctenrich import steps
from ctenrich.inference.products import RequestedProduct
from ctenrich.records import Instance, SeriesEntry
from ctenrich.release.release import ReleaseOptions
from ctenrich.results.complete import begin_tables, complete_tables
from ctenrich.runner.creation import run_format
from ctenrich.runner.run import RunConfig
from ctenrich.select.cohort_file import write_cohort_table
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, save_record

FEW = 100
ROOT = "1.2.826.0.1.3680043.10.1511"
"""Of the UIDs of :func:`tests.support.report_runs.uid_of`."""
LINKED = ("*/objects/*.dcm", "*/objects.json", "*/proof.json")
"""What release and verification read of a product."""
SKIPPED = ("dicom_metadata", "timings", "issues", "runs")


def renamed(uid: str, copy: int) -> str:
    """UID of a copy; copies are in the order of their numbers."""
    return uid.replace(f"{ROOT}.", f"{ROOT}.{copy:05d}.", 1)


def generate(folder: Path, series: int) -> None:
    """Write the run."""
    from tests.support.report_runs import NETWORK, SCORER, make_run  # large, and not what is measured

    small = make_run(folder / "few", FEW, pictures=0)
    run = Workspace(folder / "run")
    run.tables.mkdir(parents=True)
    copies = -(-series // FEW)
    uids = sorted(small.series_uids())
    everything = [renamed(uid, copy) for copy in range(copies) for uid in uids]
    entries = (SeriesEntry("c", uid, uid, uid, instances=(Instance(f"{uid}.1", "file:///x"),)) for uid in everything)
    write_cohort_table(run.root / "cohort.parquet", "many", "0" * 64, entries)
    products = tuple(RequestedProduct(str(product), product) for product in (NETWORK, SCORER))
    config = RunConfig(run_format(series, Settings().run), "0.1.0", "many", "0" * 64, products, Settings())
    save_record(run.root / "run.json", config)
    begin_tables(run)
    for path in small.tables.glob("*.parquet"):
        if path.stem not in SKIPPED and not path.stem.startswith("strict_"):
            write_copies(path, run, copies)
    complete_tables(run, {path.stem: path for path in run.tables.glob("*.parquet")})
    for uid in uids:
        folder = small.series_dir(uid)
        files = [(path, path.relative_to(folder)) for name in LINKED for path in folder.glob(name)]
        for copy in range(copies):
            target = run.series_dir(renamed(uid, copy))
            for path, name in files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target / name)


def write_copies(path: Path, run: Workspace, copies: int) -> None:
    """Write the rows of a table again and again."""
    table = pq.read_table(path)
    with pq.ParquetWriter(run.tables / path.name, table.schema, compression="zstd") as writer:
        for first in range(0, copies, 20):
            parts = [copy_of(table, run, copy) for copy in range(first, min(first + 20, copies))]
            writer.write_table(pa.concat_tables(parts).combine_chunks())


def copy_of(table: pa.Table, run: Workspace, copy: int) -> pa.Table:
    """A table with the UIDs and paths of a copy."""
    for place, field in enumerate(table.schema):
        if field.name == "path":
            paths = [Path(path).parts for path in table["path"].to_pylist()]
            column = pa.array(["/".join((run.series_path(renamed(p[1], copy)), *p[2:])) for p in paths])
        elif pa.types.is_string(field.type):
            column = pc.replace_substring(table[field.name], f"{ROOT}.", f"{ROOT}.{copy:05d}.", max_replacements=1)
        else:
            continue
        table = table.set_column(place, field, column)
    return table


def release(folder: Path) -> str:
    """The first release."""
    made = steps.release(steps.open_run(folder / "run"), folder / "first", options=ReleaseOptions(identified=True))
    return f"{sum(made.kinds.values())} objects of {made.series} series"


def release_again(folder: Path) -> str:
    """A second release, which is compared with the first."""
    options = ReleaseOptions(identified=True, previous=folder / "first")
    made = steps.release(steps.open_run(folder / "run"), folder / "second", options=options)
    return f"{sum((made.changes or {}).values())} files differ"


def verify(folder: Path) -> str:
    """``ctenrich verify``."""
    found = steps.verify(steps.open_run(folder / "run"))
    assert {one.path for one in found.mismatches} <= {"cohort.parquet"}, found.mismatches[:3]
    return f"{found.hashes} hashes"


STEPS = {"release": release, "release again": release_again, "verify": verify}


def run_step(step: str, folder: Path) -> None:
    """Run a step here and print what it took."""
    os.fsync = lambda _: None  # only processor time and memory are measured
    before = largest_memory()
    start = time.process_time()
    text = STEPS[step](folder)
    found = {"cpu": time.process_time() - start, "peak": largest_memory(), "before": before, "text": text}
    print(json.dumps(found))


def largest_memory() -> float:
    """Largest resident memory of this process so far, MB; getrusage would begin with that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def measured(folder: Path) -> Iterator[str]:
    """Lines of the table."""
    for step in STEPS:
        command = [sys.executable, "-m", "benchmarks.release", "--step", step, "--keep", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        yield f"{step:16}{found['cpu']:9.1f}{found['peak']:9.0f}{found['before']:9.0f}   {found['text']}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, nargs="+", default=[2_000, 20_000], help="numbers of series")
    parser.add_argument("--keep", type=Path, help="an empty folder for the run, which is kept")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step, options.keep)
        return
    for series in options.series:
        with tempfile.TemporaryDirectory() as name:
            folder = options.keep or Path(name)
            generate(folder, series)
            print(f"{series} series{'':5}{'CPU s':>9}{'MB':>9}{'before':>9}")
            for line in measured(folder):
                print(line, flush=True)


if __name__ == "__main__":
    main()
