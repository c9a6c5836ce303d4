"""The inputs of a notebook: catalog, cohort and run, each made where an earlier notebook left none."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ctenrich import steps
from ctenrich.catalog import open_catalog
from ctenrich.errors import UsageError
from ctenrich.inference.products import parse_segmenter
from ctenrich.models.collection import pull_recipe_weights
from ctenrich.notebook.bars import Bar
from ctenrich.notebook.machines import mount_drive
from ctenrich.phantom import PhantomOptions, Quirk, write_phantom_dose, write_phantom_study
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.runner.run import Run
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.select.files import write_cohort
from ctenrich.select.selection import select_cohort
from ctenrich.settings import Settings
from ctenrich.workspace import write_bytes

__all__ = ["Lab", "catalog_of", "choose_series", "prepare_run", "start_run"]

GENERATED = "generated"
"""The source without a download: phantoms with known organs, written on the spot."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The parameters of a notebook. All notebooks have the same, so that one goes on where another ended."""

    folder: str = "ctenrich-notebooks"
    """All files are written here."""
    drive: bool = False
    """On Colab: whether the folder is on Google Drive and survives the machine."""
    source: str = GENERATED
    """``generated``, ``idc:COLLECTION``, ``bigquery:COLLECTION``, or a folder of DICOM files."""
    patients: str = ""
    """Patient IDs, separated by commas; empty: all."""
    max_series: int = 2
    """The first so many of the selected series are worked on."""
    segmenters: str = "auto"
    """As ``ctenrich run --segmenter``, separated by commas. ``auto``: the demonstration network and the generated
    contours on generated studies, elsewhere the experts' contours."""
    bodypart: str = "auto"
    """Model of body part regression, or ``none``. ``auto``: the demonstration model on generated studies, else none."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda:0``."""
    project: str = ""
    """Google project that pays for queries."""

    @cached_property
    def root(self) -> Path:
        """Folder of the files; on Google Drive if asked for."""
        return mount_drive(self.folder, wanted=self.drive)

    @property
    def cohort(self) -> Path:
        """The cohort file."""
        return self.root / "cohort.parquet"

    @property
    def run(self) -> Path:
        """Folder of the run."""
        return self.root / "run"

    @property
    def generated(self) -> bool:
        """Whether the patients are generated."""
        return self.source == GENERATED

    @property
    def query(self) -> str:
        """Name of the selection query for the source: IDC's series index has one of its own."""
        return "select_idc_series" if self.source.startswith("idc:") else "select_ct_series"

    @property
    def values(self) -> dict[str, object]:
        """Values of the query's parameters."""
        kind, _, collection = self.source.partition(":")
        wanted = [name.strip() for name in self.patients.split(",") if name.strip()]
        found: dict[str, object] = {"patients": wanted}
        names = [name.strip() for name in collection.split(",") if name.strip()]
        return found | {"collections": names} if kind in {"idc", "bigquery"} else found

    @property
    def segmenter_list(self) -> tuple[str, ...]:
        """Segmenters of the run."""
        if self.segmenters == "auto":
            return ("nnunet:demo-organs", "expert") if self.generated else ("expert",)
        return tuple(name.strip() for name in self.segmenters.split(",") if name.strip())

    @property
    def bodypart_model(self) -> str:
        """Body part model of the run, or ``none``."""
        if self.bodypart == "auto":
            return "demo-bodypart" if self.generated else "none"
        return self.bodypart


def catalog_of(lab: Lab, progress: Progress | None = None) -> str:
    """Return the catalog of the source, for ``steps.select``; generated studies are written and folders indexed.

    Parameters
    ----------
    lab : Lab
        The parameters.
    progress : Progress, optional
        Default: bars.

    Returns
    -------
    str

    Raises
    ------
    UsageError
        BAD_PARAMETER for a source of no known form; NOT_FOUND for a folder that does not exist.
    """
    kind, _, rest = lab.source.partition(":")
    if kind in {"idc", "bigquery"}:
        if not rest:
            raise UsageError(
                Reason.BAD_PARAMETER, f"{lab.source!r} names no collection", "for example idc:nsclc_radiomics"
            )
        return "idc" if kind == "idc" else f"bigquery:{lab.project}" if lab.project else "bigquery"
    file = lab.root / "catalog.duckdb"
    images = lab.root / "dicom" if lab.generated else Path(lab.source)
    if lab.generated and not (lab.root / "truth.json").is_file():
        _write_studies(lab.root)
    steps.index([images], file, collection_id="generated" if lab.generated else "local", progress=progress or Bar())
    return f"folder:{file}"


def _write_studies(root: Path) -> None:
    """Write three small patients: one without contours, one with a treatment, and one with a missing slice."""
    chest = PhantomOptions(seed=9001, rows=96, columns=96, pixel_spacing=(4.2, 4.2), slices=54, slice_spacing=6.0)
    study = write_phantom_study(root / "dicom" / "patient_1", chest)
    treated = write_phantom_study(root / "dicom" / "patient_2", replace(chest, seed=9003, rtstruct=True))
    write_phantom_dose(treated, spacing=10.0)
    write_phantom_study(
        root / "dicom" / "patient_2_scout",
        replace(chest, seed=9003, series_number=2, slices=2, quirks=frozenset({Quirk.LOCALIZER})),
    )
    gap = replace(chest, seed=9002, slices=24, slice_spacing=10.0, quirks=frozenset({Quirk.MISSING_SLICE}))
    write_phantom_study(root / "dicom" / "patient_3", gap)
    planted = {name: float(z) for name, z in study.phantom.landmarks.items()}
    truth = {"series_instance_uid": study.series_instance_uid, "landmarks": planted}
    write_bytes(root / "truth.json", json.dumps(truth, indent=1).encode())


def choose_series(lab: Lab, catalog: str = "", progress: Progress | None = None) -> Cohort:
    """Select series by the shipped query and write the cohort file: the first `max_series` of the selected ones.

    The excluded series and their reasons are written beside it.

    Parameters
    ----------
    lab : Lab
        The parameters.
    catalog : str
        What `catalog_of` returned; empty: it is asked now.
    progress : Progress, optional
        Default: bars.

    Returns
    -------
    Cohort

    Raises
    ------
    UsageError
        EMPTY_COHORT if no series can be used; the errors of the catalog.
    """
    opened = open_catalog(catalog or catalog_of(lab, progress))
    try:
        selection = select_cohort(lab.query, opened, lab.values, name="cohort", progress=progress or Bar())
    finally:
        opened.close()
    kept = selection.cohort.series[: lab.max_series]
    if not kept:
        raise UsageError(Reason.EMPTY_COHORT, "no series was selected", "read the reasons, or name other patients")
    cohort = Cohort(selection.cohort.name, kept, cohort_sha256(kept))
    write_cohort(replace(selection, cohort=cohort), lab.cohort)
    return cohort


def start_run(lab: Lab) -> Run:
    """Create or open the run of a notebook; its cohort is selected first where there is none.

    Models, licences and settings are checked before any work; a demonstration model is refused on real patients.

    Parameters
    ----------
    lab : Lab
        The parameters.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        DEMO_MODEL, NO_MODEL, BAD_RUN and others, see :func:`ctenrich.steps.start`.
    """
    if not lab.cohort.is_file():
        choose_series(lab)
    _pull_weights(lab)
    settings = replace(Settings(), segment=replace(Settings().segment, device=lab.device))
    return steps.start(
        lab.cohort, lab.run, segmenters=lab.segmenter_list, bodypart=lab.bodypart_model, settings=settings
    )


def _pull_weights(lab: Lab) -> None:
    """Download the weights of TotalSegmentator's and MOOSE's tasks once; each line names a model and its licence."""
    for name in lab.segmenter_list:
        if name.startswith(("totalsegmentator:", "moose:")):
            bar = Bar()
            for model in pull_recipe_weights(parse_segmenter(name), progress=bar):
                bar.note(f"{model.name}: {model.state}, licence {model.licence}")


def prepare_run(lab: Lab, progress: Progress | None = None) -> Run:
    """Return the finished run of a notebook: that of an earlier one, or a new one; an interrupted run goes on.

    Parameters
    ----------
    lab : Lab
        The parameters.
    progress : Progress, optional
        Default: bars.

    Returns
    -------
    Run
        With its tables and report.

    Raises
    ------
    UsageError
        As `start_run`; NOT_PREPARED if no series could be processed.
    """
    if (lab.run / "report" / "index.html").is_file():
        return steps.open_run(lab.run)
    run = start_run(lab)
    summary = steps.run_all(run, progress=progress or Bar())
    if not (lab.run / "report" / "index.html").is_file():
        raise UsageError(Reason.NOT_PREPARED, f"the run did not end: {summary}", "run this cell again")
    return run
