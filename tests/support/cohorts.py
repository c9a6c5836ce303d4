"""Small phantom cohorts on disk, and what makes two runs equal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctenrich import steps
from ctenrich.phantom import PhantomOptions, Quirk, write_phantom_study
from ctenrich.workspace import Workspace

TINY = PhantomOptions(rows=40, columns=40, pixel_spacing=(10.0, 10.0), slices=16, slice_spacing=20.0, rtstruct=True)
"""A whole chest in 16 slices of 40 x 40: every stage runs in milliseconds."""

OBJECT_TABLES = (
    "segmentations",
    "measurement_groups",
    "quantitative_measurements",
    "qualitative_measurements",
    "image_level_annotations",
)


def write_series(
    folder: Path, count: int, *, options: PhantomOptions = TINY, quirks: Sequence[Quirk] = ()
) -> list[str]:
    """Write `count` patients; the first ``len(quirks)`` of them have a quirk each. Returns the series' UIDs."""
    uids = []
    for n in range(count):
        here = frozenset({quirks[n]}) if n < len(quirks) else frozenset()
        study = write_phantom_study(folder / f"p{n}", replace(options, seed=100 + n, quirks=here))
        uids.append(study.series_instance_uid)
    return uids


def make_cohort(folder: Path, count: int, *, options: PhantomOptions = TINY) -> Path:
    """Write `count` patients, index and select them; returns the cohort file."""
    write_series(folder / "dicom", count, options=options)
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    cohort = steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    assert len(cohort.series) == count
    return folder / "cohort.parquet"


def result_hashes(run: Path) -> dict[str, str]:
    """Name -> SHA-256 of every DICOM object and every table that is made of them, in whichever folders they are."""
    objects = {"/".join(("series", *path.parts[-4:])): path for path in Workspace(run).object_files()}
    tables = {f"tables/{name}.parquet": run / "tables" / f"{name}.parquet" for name in OBJECT_TABLES}
    found = objects | {name: path for name, path in tables.items() if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def partial_files(run: Path) -> list[str]:
    """Files that should not be there once a run has ended."""
    return [str(p.relative_to(run)) for p in run.rglob("*.tmp")]
