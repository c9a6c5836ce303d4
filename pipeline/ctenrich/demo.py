"""Run the whole job on a small generated study, as a user would."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from ctenrich import steps
from ctenrich.ledger.reader import LedgerReader
from ctenrich.phantom import PhantomOptions, Quirk, write_phantom_study
from ctenrich.progress import SILENT, Progress
from ctenrich.records import EncodedObjects, Landmarks, SortedSeries
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import write_bytes

__all__ = ["DemoResult", "run_demo", "write_demo_study"]

SEGMENTER = "nnunet:demo-organs"
BODYPART = "demo-bodypart"
_TRUTH = "truth.json"
T = TypeVar("T")


class SelectionRow(NamedTuple):
    """Number of series with one verdict of the selection."""

    verdict: str
    reason: str
    series: int


class OutcomeRow(NamedTuple):
    """How one product, or a series as a whole, ended."""

    product: str
    state: str
    reason: str
    seconds: float


class ShapeRow(NamedTuple):
    """Shape of one segment, read back from the result tables."""

    segment: str
    volume: float
    """mL."""
    surface: float
    """cm2."""
    sphericity: float
    voxels: int


class LandmarkRow(NamedTuple):
    """One landmark that was found, beside its true position."""

    landmark: str
    slice_index: int
    position: float
    """z of the slice, mm, LPS."""
    true_position: float
    """z that the phantom was made with, mm, LPS."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Results of the demonstration, as the command line prints them."""

    selection: tuple[SelectionRow, ...]
    outcomes: tuple[OutcomeRow, ...]
    shapes: tuple[ShapeRow, ...]
    landmarks: tuple[LandmarkRow, ...]
    objects: int
    """Number of DICOM objects written."""
    report: Path
    summary: RunSummary

    @property
    def exit_code(self) -> int:
        """Exit code of the run."""
        return self.summary.exit_code


def write_demo_study(folder: Path, *, contours: bool = False) -> None:
    """Write the DICOM files of the demonstration: a chest CT that can be reconstructed, and two series that cannot.

    Parameters
    ----------
    folder : Path
        Folder for the files; the true landmarks are written beside it.
    contours : bool
        Whether the chest CT comes with an RTSTRUCT of the planted organs, to compare with.
    """
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
    """Run the whole job below `out`; finished stages are not repeated.

    Parameters
    ----------
    out : Path
        Gets ``dicom/``, ``catalog.duckdb``, ``cohort.parquet`` and ``run/``.
    device : str
        auto, cpu or cuda:N.
    progress : Progress
        Receives the progress of every step.

    Returns
    -------
    DemoResult
    """
    out = Path(out).resolve()
    if not (out / _TRUTH).is_file():
        write_demo_study(out / "dicom")
    catalog, cohort = out / "catalog.duckdb", out / "cohort.parquet"
    steps.index([out / "dicom"], catalog, collection_id="ctenrich_demo", progress=progress)
    steps.select("select_ct_series", f"folder:{catalog}", cohort, progress=progress)
    settings = replace(Settings(), segment=replace(Settings().segment, device=device))
    run = steps.start(cohort, out / "run", segmenters=[SEGMENTER], bodypart=BODYPART, settings=settings)
    summary = steps.run_all(run, progress=progress)
    return DemoResult(
        selection=_selection(run),
        outcomes=_outcomes(run),
        shapes=_shapes(run),
        landmarks=_landmarks(run, out / _TRUTH),
        objects=sum(len(record.objects) for record in _records(run, EncodedObjects)),
        report=run.workspace.report / "index.html",
        summary=summary,
    )


def _selection(run: Run) -> tuple[SelectionRow, ...]:
    import pyarrow.parquet as pq

    excluded = run.root / "cohort.excluded.parquet"
    reasons = pq.read_table(excluded)["reason"].to_pylist() if excluded.is_file() else []
    return (
        SelectionRow("selected", "", len(run.cohort.series)),
        *(SelectionRow("excluded", reason, number) for reason, number in sorted(Counter(reasons).items())),
    )


def _outcomes(run: Run) -> tuple[OutcomeRow, ...]:
    with LedgerReader(run.ledger_path) as ledger:
        found = ledger.outcomes()
    return tuple(
        OutcomeRow(o.product or "series", o.state.value, o.reason.value if o.reason else "", round(o.seconds, 1))
        for o in found
    )


def _shapes(run: Run) -> tuple[ShapeRow, ...]:
    """Read the shape features back from the tables, which were read back from the SR."""
    table = steps.query(
        run,
        "SELECT findingSite.CodeMeaning AS segment, Quantity.CodeMeaning AS quantity, CAST(Value AS DOUBLE) AS value "
        "FROM quantitative_measurements WHERE segmentationInstanceUID IS NOT NULL",
    )
    found: dict[str, dict[str, float]] = {}
    for row in table.to_pylist():
        found.setdefault(row["segment"], {})[row["quantity"]] = row["value"]
    series = _first_series(run)
    voxel = series.pixel_spacing[0] * series.pixel_spacing[1] * series.slice_spacing
    return tuple(
        ShapeRow(
            segment,
            values["Volume of Mesh"] / 1e3,
            values["Surface Area of Mesh"] / 1e2,
            values["Sphericity"],
            round(values["Volume from Voxel Summation"] / voxel),
        )
        for segment, values in sorted(found.items())
        if values.keys() >= {"Volume of Mesh", "Surface Area of Mesh", "Sphericity", "Volume from Voxel Summation"}
    )


def _first_series(run: Run) -> SortedSeries:
    return SeriesStore(run.workspace).sorted_series(run.cohort.series[0].series_instance_uid)


def _landmarks(run: Run, truth: Path) -> tuple[LandmarkRow, ...]:
    planted: dict[str, float] = json.loads(truth.read_bytes())["landmarks"]
    series = _first_series(run)
    rows: list[LandmarkRow] = []
    for landmarks in _records(run, Landmarks):
        for item in landmarks.items:
            if item.slice_index is not None and item.name in planted:
                z = series.slices[item.slice_index].position[2]
                rows.append(LandmarkRow(item.name, item.slice_index, z, round(planted[item.name], 1)))
    return tuple(rows)


def _records(run: Run, kind: type[T]) -> list[T]:
    """Records of one kind of all products of the first series."""
    store, uid = SeriesStore(run.workspace), run.cohort.series[0].series_instance_uid
    return [record for p in run.config.products if (record := store.find(kind, uid, p.product)) is not None]
