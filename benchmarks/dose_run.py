"""Doses of many treatments in one run that is killed and resumed.

``python -m benchmarks.dose_run --treatments 1000 --kills 3 --folder FOLDER``. The treatments are generated: small
phantoms, each with an RTSTRUCT, an RT Plan and an RT Dose. The run is killed (SIGKILL) after equal parts of the cohort,
and started again by the same command. Printed are the outcomes, the proven dose SRs, the treatments that were measured
again, and the largest memory of the resumed process.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb

from ctenrich import steps
from ctenrich.catalog.folder import FolderCatalog
from ctenrich.phantom import PhantomOptions, write_phantom_dose, write_phantom_study
from ctenrich.treatments.files import write_treatments
from ctenrich.treatments.make import TreatmentRequest, make_treatments

SMALL = PhantomOptions(rows=40, columns=40, pixel_spacing=(10.0, 10.0), slices=16, slice_spacing=20.0, rtstruct=True)
SETTINGS = """
[convert]
nifti = false
[validate]
dciodvfy = false
[doses]
enabled = true
metrics = ["volume", "mean", "max", "D95%", "D2cc", "V20Gy[%]"]
bounds = false
"""


def make_cohort(folder: Path, count: int) -> Path:
    """Write the patients that are not there yet, and the treatments file."""
    for number in range(count):
        place = folder / "dicom" / f"p{number:05d}"
        if not (place / "RD01.dcm").exists():
            write_phantom_dose(write_phantom_study(place, SMALL.changed(seed=number)), spacing=20.0)
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    catalog = FolderCatalog(folder / "catalog.duckdb")
    try:
        write_treatments(make_treatments(catalog, TreatmentRequest()), folder / "treatments.parquet")
    finally:
        catalog.close()
    (folder / "settings.toml").write_text(SETTINGS)
    return folder / "treatments.parquet"


def command(folder: Path) -> list[str]:
    """The command, the same every time."""
    arguments = ["run", folder / "treatments.parquet", "--out", folder / "run", "--segmenter", "expert", "--dose"]
    arguments += ["--settings", folder / "settings.toml", "--executor", "serial"]
    return [sys.executable, "-m", "ctenrich.cli.main", *map(str, arguments)]


def records(folder: Path) -> int:
    """Treatments with doses so far."""
    return sum(1 for _ in (folder / "run" / "series").glob("*/expert/doses.json"))


def peak_megabytes(process: subprocess.Popen[bytes]) -> float:
    """Largest resident memory of a process so far."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--treatments", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    start = time.monotonic()
    make_cohort(given.folder, given.treatments)
    print(f"{given.treatments} treatments written in {time.monotonic() - start:.0f} s", flush=True)
    for kill in range(given.kills):
        wanted = (kill + 1) * given.treatments // (given.kills + 1)
        process = subprocess.Popen(command(given.folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while records(given.folder) < wanted and process.poll() is None:
            time.sleep(1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed with {records(given.folder)} treatments measured", flush=True)
    before = {path: path.stat().st_mtime_ns for path in (given.folder / "run" / "series").glob("*/expert/doses.json")}
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command(given.folder))
    while process.poll() is None:
        peak = max(peak, peak_megabytes(process))
        time.sleep(1)
    print(f"resumed: exit code {process.returncode}, {time.monotonic() - start:.0f} s, {peak:.0f} MB at most")
    repeated = sum(path.stat().st_mtime_ns != changed for path, changed in before.items())
    tables = given.folder / "run" / "tables"
    outcomes = duckdb.execute(
        "select product, state, reason, count(*), count(distinct SeriesInstanceUID) from read_parquet(?) group by all",
        [str(tables / "outcomes.parquet")],
    ).fetchall()
    checks = "select count(distinct SeriesInstanceUID), bool_and(passed) from read_parquet(?)"
    own = f"{checks} where starts_with(\"check\", 'dose_sr')"
    proven = duckdb.execute(own, [str(tables / "proofs.parquet")]).fetchall()
    measured = duckdb.execute(
        "select count(distinct SeriesInstanceUID) from read_parquet(?)", [str(tables / "dose_metrics.parquet")]
    ).fetchall()
    print(f"outcomes (product, state, reason, rows, series): {outcomes}")
    print(
        f"dose SRs (series, all checks passed): {proven}; series with metrics: {measured}; measured again: {repeated}"
    )


if __name__ == "__main__":
    main()
