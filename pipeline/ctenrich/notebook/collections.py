"""Several collections in one cohort and run: generated patients, folders of a folder, or public collections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ctenrich import steps
from ctenrich.errors import UsageError
from ctenrich.notebook.bars import Bar
from ctenrich.notebook.lab import Lab, choose_series
from ctenrich.phantom import PhantomOptions, write_phantom_study
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.runner.run import Run
from ctenrich.settings import FeaturesSettings, Settings
from ctenrich.workspace import write_bytes

__all__ = ["choose_collections", "prepare_contours"]

_GENERATED = {"generated_first": 9003, "generated_second": 9004}
"""Collection -> seed of its patient."""
_RADIOMICS = {"featureClass": {"firstorder": [], "glcm": []}, "setting": {"binWidth": 25}}
"""pyradiomics' parameters."""


def choose_collections(lab: Lab, progress: Progress | None = None) -> Cohort:
    """Select the CT series of several collections, and write them as one cohort file.

    Parameters
    ----------
    lab : Lab
        The parameters. ``generated``: two collections of one patient each, with contours. A folder: each of its
        folders is a collection of that name. ``idc:A,B``: public collections.
    progress : Progress, optional
        Default: bars.

    Returns
    -------
    Cohort
        The first `max_series` of the selected series.

    Raises
    ------
    UsageError
        NOT_FOUND for a folder without folders; the errors of `choose_series`.
    """
    if lab.source.startswith(("idc:", "bigquery:")):
        return choose_series(lab, progress=progress)
    folders = _generated_folders(lab.root / "collections") if lab.generated else _folders(Path(lab.source))
    file = lab.root / "catalog.duckdb"
    for folder in folders:
        steps.index([folder], file, collection_id=folder.name, progress=progress or Bar())
    return choose_series(lab, f"folder:{file}", progress)


def _folders(root: Path) -> list[Path]:
    found = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not found:
        message = f"{root.name} has no folders, and each collection is one"
        raise UsageError(Reason.NOT_FOUND, message, "make a folder for each collection below it")
    return found


def _generated_folders(root: Path) -> list[Path]:
    chest = PhantomOptions(rows=96, columns=96, pixel_spacing=(4.2, 4.2), slices=54, slice_spacing=6.0, rtstruct=True)
    for name, seed in _GENERATED.items():
        if not (root / name).is_dir():
            write_phantom_study(root / name, chest.changed(seed=seed))
    return [root / name for name in _GENERATED]


def prepare_contours(lab: Lab, progress: Progress | None = None, *, features: Sequence[str] = ()) -> Run:
    """Run all stages on the experts' contours of a cohort, with radiomics where pyradiomics is installed.

    Parameters
    ----------
    lab : Lab
        The parameters; its cohort has been selected.
    progress : Progress, optional
        Default: bars.
    features : sequence of str
        Feature models, e.g. ``deep:astra``.

    Returns
    -------
    Run
        With its tables and report; series without contours have failed with their reason.

    Raises
    ------
    UsageError
        NOT_PREPARED if no series has a result.
    """
    settings = replace(Settings(), features=FeaturesSettings(models=tuple(features)))
    if find_spec("radiomics") is not None:
        parameters = lab.root / "radiomics.json"
        write_bytes(parameters, json.dumps(_RADIOMICS, indent=1).encode())
        settings = replace(settings, measure=replace(settings.measure, radiomics=str(parameters)))
    run = steps.start(lab.cohort, lab.run, segmenters=["expert"], settings=settings)
    summary = steps.run_all(run, progress=progress or Bar())
    if not (lab.run / "report" / "index.html").is_file():
        raise UsageError(Reason.NOT_PREPARED, f"the run did not end: {summary}", "run this cell again")
    return run
