"""Damaged files of every kind that ctenrich reads: each ends in a result or a typed error, in bounded time and memory.

``python -m benchmarks.fuzz [--seed N] [--files N] [--series N] [--runs N] [--only KIND:N] [--seconds S] [--quick]``

Valid files are made, their bytes are changed by seeded mutators, and the program's own readers read them. A finding is
an error that is not a `CtenrichError`, a line on the console, more than 10 s of CPU time for one file, more than 2 GB
of memory, a run or export whose outcomes do not add up (planned = done + skipped + failed), or a volume that differs
from the pixels that pydicom reads, or that lacks a slice of its folder without an issue. A finding names its file,
series or run by number: ``--only run:20`` repeats that one.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pydicom

from benchmarks.fuzz_inputs import Original, make_originals, mutate
from benchmarks.fuzz_series import check_run, convert_and_compare, damage_cohort, damage_small, write_cohort
from ctenrich.cli.console import keep_libraries_off_console
from ctenrich.errors import CtenrichError
from ctenrich.publish.export import export_objects
from ctenrich.records import State

SECONDS_OF_FILE = 10
MEMORY = 2 * 1024**3
SERIES_OF_RUN = 10
EXPORTED_EVERY = 25
"""One of so many damaged SEGs is exported too, beside a good one: exports take longer than readings."""


class _HangError(BaseException):
    """A file took more CPU time than it may; not an `Exception`, so that no reader takes it for damage."""


@dataclass
class Tally:
    """Counts and findings."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Series and products of runs, by state."""
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        counts = {name: dict(getattr(self, name)) for name in ("accepted", "refused", "outcomes")}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return counts | {"findings": self.findings, "slowest_s": round(self.slowest, 2), "peak_memory_mb": peak}


# ---------------------------------------------------------------- one file, series or run


def _raise_hang(*_: object) -> None:
    raise _HangError


def attempt(kind: str, name: str, act: Callable[[], object], tally: Tally, *, seconds: float = SECONDS_OF_FILE) -> None:
    """Do something with a damaged file, and note how it ends.

    Parameters
    ----------
    kind, name : str
        What is counted, and what a finding is called.
    act : function
        Reads the file.
    tally : Tally
        Gets the count, or the finding.
    seconds : float
        CPU time that it may take.
    """
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        with _console() as lines:
            act()
        tally.accepted[kind] += 1
    except CtenrichError:
        tally.refused[kind] += 1
    except _HangError:
        tally.findings.append(f"{kind} {name}: more than {seconds} s")
    except AssertionError as error:
        tally.findings.append(f"{kind} {name}: {error}")
    except Exception as error:  # noqa: BLE001  this is what is looked for
        tally.findings.append(f"{kind} {name}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        tally.slowest = max(tally.slowest, time.process_time() - begin)
    if lines:
        tally.findings.append(f"{kind} {name}: printed {lines[0][:200]}")


@contextmanager
def _console() -> Iterator[list[str]]:
    """Collect what a block prints, warnings included; what native libraries print is kept from the console already."""
    lines: list[str] = []
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(printed), redirect_stderr(printed):
        warnings.simplefilter("always")
        try:
            yield lines
        finally:
            lines += [*printed.getvalue().splitlines(), *(str(one.message) for one in caught)]


# ---------------------------------------------------------------- many of them


@dataclass(frozen=True)
class Pass:
    """Which numbers are tried, and until when; the damage of each depends on the seed and its number alone."""

    seed: int
    numbers: range
    until: float

    def __iter__(self) -> Iterator[tuple[int, random.Random]]:
        for number in self.numbers:
            if time.monotonic() > self.until:
                return
            yield number, random.Random(f"{self.seed} {number}")


def fuzz_files(originals: list[Original], wanted: Pass, tally: Tally) -> None:
    """Read damaged files, of each kind in turn."""
    good = next(one.content for one in originals if one.kind == "seg")
    with tempfile.TemporaryDirectory() as folder:
        for number, rng in wanted:
            original = originals[number % len(originals)]
            here = Path(folder) / "damaged"
            here.mkdir()
            path = here / f"file{original.suffix}"
            path.write_bytes(mutate(original.content, rng))
            attempt(original.kind, f"{number}", lambda path=path, read=original.read: read(path), tally)  # type: ignore[misc]
            if original.kind == "seg" and (number // len(originals)) % EXPORTED_EVERY == 0:
                attempt("export", f"{number}", lambda path=path: _export_beside_good(path, good), tally)  # type: ignore[misc]
            shutil.rmtree(here)


def _export_beside_good(path: Path, good: bytes) -> None:
    """A damaged object does not end the export of another, and the outcomes add up."""
    folder = path.parent / "both"
    folder.mkdir()
    shutil.copyfile(path, folder / "damaged.dcm")
    (folder / "good.dcm").write_bytes(good)
    export = export_objects([folder], "nifti", folder / "out")
    states = {state: export.count(state) for state in State}
    ended = states[State.DONE] + states[State.SKIPPED] + states[State.FAILED]
    assert ended == len(export.objects) == 2, f"the outcomes do not add up: {states}"
    assert states[State.DONE] >= 1, "the good object was not exported"
    assert all(p.is_file() for p in export.files), "a listed file does not exist"


def fuzz_series(wanted: Pass, folder: Path, tally: Tally) -> None:
    """Sort and convert series with damaged, missing and doubled files."""
    for number, rng in wanted:
        here = folder / "series"
        damage_small(here / "in", rng)
        attempt("series", f"{number}", lambda here=here: convert_and_compare(here), tally)  # type: ignore[misc]
        shutil.rmtree(here)


def fuzz_runs(wanted: Pass, folder: Path, tally: Tally) -> None:
    """Index, select and run cohorts with damaged, missing and doubled files, contours among them."""
    before = write_cohort(folder / "cohort", SERIES_OF_RUN)
    for number, rng in wanted:
        here = folder / "run"
        shutil.copytree(folder / "cohort", here / "in")
        damage_cohort(here / "in", rng)

        def run(here: Path = here) -> None:
            tally.outcomes.update(check_run(here, before))

        attempt("run", f"{number}", run, tally, seconds=SECONDS_OF_FILE * SERIES_OF_RUN)
        shutil.rmtree(here)


def main() -> int:
    """Run the mutators; prints a JSON object, and returns 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--series", type=int, default=300)
    parser.add_argument("--runs", type=int, default=30, help=f"cohorts of {SERIES_OF_RUN} series")
    parser.add_argument("--only", metavar="KIND:N", help="one number of file, series or run, as a finding names it")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so much time")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the files, series and runs")
    options = parser.parse_args()
    scale = 20 if options.quick else 1
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    signal.signal(signal.SIGPROF, _raise_hang)
    keep_libraries_off_console()
    tally = Tally()
    begin = time.monotonic()

    def wanted(kind: str, share: float) -> Pass:
        numbers = range(getattr(options, kind) // scale)
        if options.only is not None:
            name, _, number = options.only.partition(":")
            numbers = range(int(number), int(number) + 1) if kind in {name, f"{name}s"} else range(0)
        return Pass(options.seed, numbers, begin + options.seconds * share)

    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as folder:
        originals = make_originals(Path(made))
        taken = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
        fuzz_series(wanted("series", 0.3), Path(folder), tally)
        fuzz_files(originals, wanted("files", 0.7), tally)
        fuzz_runs(wanted("runs", 1), Path(folder), tally)
    print(json.dumps({"seed": options.seed, **tally.as_dict(), "seconds": round(time.monotonic() - begin)}, indent=1))
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
