"""The demonstration: a small generated study goes through the whole job, as a user's would."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctenrich import steps
from ctenrich.progress import SILENT, Progress
from ctenrich.records import EncodedObjects, Landmarks, SortedSeries
from ctenrich.runner.ledger import Ledger
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import Run
from ctenrich.settings import Settings
from ctenrich.workspace import load_record, write_bytes

__all__ = ["DemoResult", "run_demo", "write_demo_study"]

SEGMENTER = "nnunet:demo-organs"
BODYPART = "demo-bodypart"
_TRUTH = "truth.json"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration shows on the terminal."""

    selection: tuple[tuple[str, str, int], ...]
    """(verdict, reason, number of series)."""
    outcomes: tuple[tuple[str, str, str, float], ...]
    """(product, state, reason, seconds)."""
    shapes: tuple[tuple[str, float, float, float, int], ...]
    """(segment, volume in mL, surface in cm2, sphericity, voxels), read back from the result tables."""
    landmarks: tuple[tuple[str, int, float, float], ...]
    """(landmark, slice index, its patient z in mm, the planted z in mm)."""
    objects: int
    report: Path
    summary: RunSummary

    @property
    def exit_code(self) -> int:
        """Of the run."""
        return self.summary.exit_code


def write_demo_study(folder: Path, *, contours: bool = False) -> None:
    """Write the demo's DICOM files: a chest CT that can be reconstructed, and two series that cannot.

    Parameters
    ----------
    folder : Path
        Gets the files; the planted truth is written beside it.
    contours : bool
        Whether the chest CT comes with an RTSTRUCT of the planted organs, to compare with.
    """
    from ctenrich.phantom import PhantomOptions, Quirk, write_phantom_study

    chest = PhantomOptions(seed=9001, rows=160, columns=160, pixel_spacing=(2.5, 2.5), slices=104, slice_spacing=3.0)
    small = replace(chest, rows=96, columns=96, pixel_spacing=(4.2, 4.2), slices=24, slice_spacing=10.0)
    study = write_phantom_study(folder / "patient_1" / "chest", replace(chest, rtstruct=contours))
    write_phantom_study(
        folder / "patient_1" / "scout",
        replace(small, series_number=2, slices=2, quirks=frozenset({Quirk.LOCALIZER})),
    )
    write_phantom_study(folder / "patient_2", replace(small, seed=9002, quirks=frozenset({Quirk.MISSING_SLICE})))
    planted = {name: float(z) for name, z in study.phantom.landmarks.items()}
    truth = {"series_instance_uid": study.series_instance_uid, "landmarks": planted}
    write_bytes(folder.parent / _TRUTH, json.dumps(truth, indent=1).encode())


def run_demo(out: Path, *, device: str = "auto", progress: Progress = SILENT) -> DemoResult:
    """Do the whole job below `out`; what is there already is not done again.

    Parameters
    ----------
    out : Path
        Gets ``dicom/``, ``catalog.duckdb``, ``cohort.parquet`` and ``run/``.
    device : str
        auto, cpu or cuda:N.
    progress : Progress
        Told of every step.
    """
    out = Path(out).resolve()
    if not (out / _TRUTH).is_file():
        write_demo_study(out / "dicom")
    catalog, cohort = out / "catalog.duckdb", out / "cohort.parquet"
    steps.index([out / "dicom"], catalog, collection_id="ctenrich_demo", progress=progress)
    steps.select("select_ct_series", f"folder:{catalog}", cohort, progress=progress)
    settings = replace(Settings(), segment=replace(Settings().segment, device=device))
    run = steps.start(
        cohort, out / "run", segmenters=[SEGMENTER], bodypart=BODYPART, settings=settings, allow_demo=True
    )
    summary = steps.run_all(run, progress=progress)
    return DemoResult(
        _selection(run), _outcomes(run), _shapes(run), _landmarks(run, out / _TRUTH), _objects(run),
        run.workspace.report / "index.html", summary,
    )  # fmt: skip


def _selection(run: Run) -> tuple[tuple[str, str, int], ...]:
    import pyarrow.parquet as pq

    rows = [("selected", "", len(run.cohort.series))]
    excluded = run.root / "cohort.excluded.parquet"
    reasons = pq.read_table(excluded)["reason"].to_pylist() if excluded.is_file() else []
    return tuple(rows + [("excluded", reason, reasons.count(reason)) for reason in sorted(set(reasons))])


def _outcomes(run: Run) -> tuple[tuple[str, str, str, float], ...]:
    with Ledger(run.ledger_path, read_only=True) as ledger:
        found = ledger.outcomes()
    return tuple(
        (o.product or "series", o.state.value, o.reason.value if o.reason else "", round(o.seconds, 1)) for o in found
    )


def _shapes(run: Run) -> tuple[tuple[str, float, float, float, int], ...]:
    """Read the shape features back from the tables, which were read back from the SR."""
    table = steps.query(
        run,
        "SELECT findingSite.CodeMeaning AS segment, Quantity.CodeMeaning AS quantity, CAST(Value AS DOUBLE) AS value "
        "FROM quantitative_measurements WHERE segmentationInstanceUID IS NOT NULL",
    )
    found: dict[str, dict[str, float]] = {}
    for row in table.to_pylist():
        found.setdefault(row["segment"], {})[row["quantity"]] = row["value"]
    names = ("Volume of Mesh", "Surface Area of Mesh", "Sphericity", "Volume from Voxel Summation")
    voxel = _voxel_volume(run)
    return tuple(
        (segment, v[names[0]] / 1e3, v[names[1]] / 1e2, v[names[2]], round(v[names[3]] / voxel))
        for segment, v in sorted(found.items())
        if all(name in v for name in names)
    )


def _voxel_volume(run: Run) -> float:
    series = _sorted(run)
    return series.pixel_spacing[0] * series.pixel_spacing[1] * series.slice_spacing


def _sorted(run: Run) -> SortedSeries:
    uid = run.cohort.series[0].series_instance_uid
    return load_record(run.workspace.series_dir(uid) / "sorted.json", SortedSeries)


def _landmarks(run: Run, truth: Path) -> tuple[tuple[str, int, float, float], ...]:
    planted: dict[str, float] = json.loads(truth.read_bytes())["landmarks"]
    series = _sorted(run)
    rows: list[tuple[str, int, float, float]] = []
    for landmarks in _records(run, "landmarks.json", Landmarks):
        for item in landmarks.items:
            if item.slice_index is not None and item.name in planted:
                z = series.slices[item.slice_index].position[2]
                rows.append((item.name, item.slice_index, z, round(planted[item.name], 1)))
    return tuple(rows)


def _objects(run: Run) -> int:
    return sum(len(o.objects) for o in _records(run, "objects.json", EncodedObjects))


def _records(run: Run, name: str, cls: type[Any]) -> list[Any]:
    uid = run.cohort.series[0].series_instance_uid
    folders = [run.workspace.product_dir(uid, p.product) for p in run.config.products]
    return [load_record(folder / name, cls) for folder in folders if (folder / name).is_file()]
