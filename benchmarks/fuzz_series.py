"""Series and whole runs with damaged files: their volumes equal pydicom's pixels, and every total adds up."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from tests.support.cohorts import write_series
from tests.support.small_series import Small, folder_entry, small_pixels, write_small

from benchmarks.fuzz_inputs import SETTINGS, mutate
from ctenrich import steps
from ctenrich.errors import CtenrichError
from ctenrich.ledger.reader import LedgerReader
from ctenrich.records import FetchedSeries, Outcome, SortedSeries, State, Volume
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.stages.convert import convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace, load_array

__all__ = ["check_run", "convert_and_compare", "count_slice_files", "damage_cohort", "damage_small", "write_cohort"]

Pixels = Mapping[str, list[NDArray[np.float64]]]
"""SOP Instance UID -> rescaled pixels of each file that has it."""


# ---------------------------------------------------------------- small series


def damage_small(folder: Path, rng: random.Random) -> None:
    """Write a series of 6 slices, with 1 or 2 files damaged, missing or doubled."""
    _damage(write_small(folder), rng, rng.choice((1, 1, 2)))


def _damage(paths: list[Path], rng: random.Random, count: int) -> None:
    for path in rng.sample(paths, count):
        match rng.randrange(6):
            case 0:
                path.unlink()
            case 1:
                path.with_name(f"copy-{path.name}").write_bytes(mutate(path.read_bytes(), rng))
            case _:
                path.write_bytes(mutate(path.read_bytes(), rng))


def convert_and_compare(here: Path) -> None:
    """Fetch, sort and convert the series below ``in``, and compare its volume with pydicom's pixels."""
    workspace = Workspace(here / "run")
    fetched = fetch_series(folder_entry(here / "in"), settings=SETTINGS, workspace=workspace)
    series = sort_series(fetched, settings=SETTINGS, workspace=workspace)
    volume = convert_series(series, settings=SETTINGS, workspace=workspace)
    before = {f"1.2.3.4.{k + 1}": [small_pixels(Small(), k).astype(np.float64) - 1024] for k in range(Small().count)}
    _compare_volume(_Read(fetched, series, volume, workspace), here / "in", before)


class _Read(NamedTuple):
    """What the stages made of a series."""

    fetched: FetchedSeries
    series: SortedSeries
    volume: Volume
    workspace: Workspace


def _compare_volume(read: _Read, folder: Path, before: Pixels) -> None:
    """Every slice has the pixels of a file; a file of the folder that is no slice has an issue.

    `before` has the pixels of slices before their damage, for files that pydicom cannot read at all.
    """
    series = read.series
    array = load_array(read.workspace.resolve(series.series_instance_uid, read.volume.array_path))
    readable = pixels_by_pydicom(folder)
    for k, item in enumerate(series.slices):
        expected = readable.get(item.sop_instance_uid) or before.get(item.sop_instance_uid, [])
        assert any(np.array_equal(array[k], pixels) for pixels in expected), f"slice {k} differs from pydicom's pixels"
    files = count_slice_files(folder)
    issues = (*read.fetched.issues, *series.issues, *read.volume.issues)
    assert len(series.slices) >= files or issues, f"{files} files, {len(series.slices)} slices and no issue"


def count_slice_files(folder: Path) -> int:
    """Count the files of a series' folder that are its slices, or copies of them; structure sets are none."""
    return sum(1 for path in folder.iterdir() if not path.name.removeprefix("copy-").startswith("rtstruct"))


def pixels_by_pydicom(folder: Path) -> Pixels:
    """Rescaled pixels of every file that pydicom can read."""
    out: dict[str, list[NDArray[np.float64]]] = {}
    with warnings.catch_warnings():  # of pydicom, which reads here to judge ctenrich
        warnings.simplefilter("ignore")
        for path in folder.iterdir():
            try:
                uid, pixels = _rescaled_pixels(path)
            except Exception:  # noqa: BLE001  a file that pydicom cannot read has no pixels to compare with
                continue
            out.setdefault(uid, []).append(pixels)
    return out


def _rescaled_pixels(path: Path) -> tuple[str, NDArray[np.float64]]:
    # from memory: pydicom asks a file for as many bytes as an element claims to have
    data = pydicom.dcmread(BytesIO(path.read_bytes()), force=True)
    try:
        stored = data.pixel_array.astype(np.float64)
    except Exception:  # noqa: BLE001  pydicom asks for more elements than the numbers depend on
        kind = "<i2" if data.PixelRepresentation else "<u2"
        count = data.Rows * data.Columns
        stored = np.frombuffer(data.PixelData, kind, count).reshape(data.Rows, -1).astype(np.float64)
    values = stored * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    return str(data.SOPInstanceUID).strip(" \0"), np.round(values)


# ---------------------------------------------------------------- runs


def write_cohort(folder: Path, count: int) -> Pixels:
    """Write CT series with contours, a folder for each; return the pixels of all slices."""
    write_series(folder, count)
    for path in sorted(folder.rglob("*.dcm")):
        if pydicom.dcmread(path, stop_before_pixels=True).Modality == "RTSTRUCT":
            path.rename(path.with_name("rtstruct.dcm"))
    found: dict[str, list[NDArray[np.float64]]] = {}
    for one in {path.parent for path in folder.rglob("*.dcm")}:
        found.update(pixels_by_pydicom(one))
    return found


def damage_cohort(folder: Path, rng: random.Random) -> None:
    """Damage most series of a cohort: up to 3 files of each, contours too."""
    for one in sorted({path.parent for path in folder.rglob("*.dcm")}):
        _damage(sorted(one.iterdir()), rng, rng.choice((0, 1, 1, 2, 3)))


def check_run(here: Path, before: Pixels) -> Counter[str]:
    """Index, select, run, verify and export the files below ``in``; return how many series and products ended how.

    Raises
    ------
    AssertionError
        A total does not add up, a hash differs, or a volume is not that of its files.
    """
    summary = steps.index([here / "in"], here / "catalog.duckdb")
    faulty = sum(count for _, count in summary.faults)
    there = sum(1 for path in (here / "in").rglob("*") if path.is_file())
    assert summary.files == there, f"{summary.files} files were counted, {there} are there"
    assert summary.instances + summary.copies + summary.other_files + faulty >= there, f"a file is lost: {summary}"
    cohort = steps.select("select_ct_series", f"folder:{here / 'catalog.duckdb'}", here / "cohort.parquet")
    run = steps.start(here / "cohort.parquet", here / "run", segmenters=["expert"], settings=SETTINGS)
    result = steps.run_all(run)
    planned = list(run.jobs())
    assert sum(result.states.values()) == len(planned) == 2 * len(cohort.series), f"{planned}: {result.states}"
    states = Counter({f"{state} in a run": number for state, number in result.states.items() if number})
    assert set(result.states) - {"done", "skipped", "failed"} == {
        state for state in result.states if state in ("excluded", "not_started_budget") and not result.states[state]
    }
    _check_results(run, here / "in", before)
    return states


def _check_results(run: Run, folder: Path, before: Pixels) -> None:
    store = SeriesStore(run.workspace)
    outcomes = {(o.series_instance_uid, o.product): o for o in _outcomes(run)}
    for entry in run.cohort.series:
        uid = entry.series_instance_uid
        series, volume = store.find(SortedSeries, uid), store.find(Volume, uid)
        outcome: Outcome = outcomes[uid, ""]
        if outcome.state is State.DONE:
            assert series is not None
            assert volume is not None
            read = _Read(store.fetched(uid), series, volume, run.workspace)
            _compare_volume(read, Path(series.slices[0].path).parent, before)
    again = steps.run_command(run, "validate") if any(o.state is State.DONE for o in outcomes.values()) else None
    assert again is None or again.exit_code == 0, "validate of a finished run"
    after = {(o.series_instance_uid, o.product): o for o in _outcomes(run)}
    assert all(o.state is outcomes[key].state for key, o in after.items()), "validate changed outcomes"
    found = steps.verify(run)
    assert not found.mismatches, f"hashes differ: {found.mismatches[:3]}"
    try:
        export = steps.export(run, "nifti", folder.parent / "export")
    except CtenrichError:
        assert not list((run.root / "series").glob("*/*/objects/seg.dcm")), "the run's SEGs were not exported"
        return
    states = {state: export.count(state) for state in State}
    assert states[State.DONE] + states[State.SKIPPED] + states[State.FAILED] == len(export.objects)
    assert states[State.FAILED] == 0, "an object of a run was not exported"
    assert all(p.is_file() for p in export.files)


def _outcomes(run: Run) -> list[Outcome]:
    with LedgerReader(run.ledger_path) as ledger:
        return ledger.outcomes()
