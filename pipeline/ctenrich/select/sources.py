"""Make a cohort file from a folder of DICOM files, a catalog, a collection of IDC or a list of series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.errors import InputError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.select.files import excluded_path, write_cohort
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.select.series_list import read_series_list, select_series_list

__all__ = ["LISTS", "SourceCohort", "make_cohort"]

LISTS = (".csv", ".txt")
"""Endings of files that list series."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_NOT_DICOM = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz", ".npy")
_FORMS = "a cohort file, a folder of DICOM files, a list of series (.csv, .txt), folder:FILE, idc:COLLECTION[/PATIENT]"
_QUERY, _IDC_QUERY = "select_ct_series", "select_idc_series"
_LOOKED_AT = 10_000
"""Files of a folder without DICOM whose names are looked at, to explain what they are."""


@dataclass(frozen=True, kw_only=True)
class SourceCohort:
    """A cohort file, and what was chosen for it."""

    path: Path
    selected: int | None = None
    """Number of selected series; None for a cohort file that was given."""
    excluded: tuple[tuple[str, int], ...] = ()
    """Reason code and number of series, by falling number."""
    notes: tuple[str, ...] = ()
    """What the catalog does not know."""

    def __str__(self) -> str:
        """One line: how many series were selected, and why the others were not."""
        if self.selected is None:
            return f"the series of {self.path.name}"
        out = sum(number for _, number in self.excluded)
        line = f"{self.selected} of {self.selected + out} series selected"
        if not out:
            return line
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.excluded)
        return f"{line}; excluded: {reasons} (every rule that failed: {excluded_path(self.path)})"


def make_cohort(
    source: str, folder: Path, *, catalog: str = "idc", series: str = "", progress: Progress = SILENT
) -> SourceCohort:
    """Make a cohort file from a source of series.

    Parameters
    ----------
    source : str
        A cohort file (``.parquet``), which is returned as it is; a folder of DICOM files, which is indexed; a list of
        Series Instance UIDs (``.csv`` or ``.txt``), which is looked up in `catalog`; ``folder:FILE``, a catalog that
        ``ctenrich index`` wrote; ``idc:COLLECTION[/PATIENT]``, a public collection.
    folder : Path
        Gets ``catalog.duckdb`` and ``cohort.parquet`` with its excluded series and its lock.
    catalog : str
        Where a list of series is looked up, see :func:`ctenrich.catalog.open_catalog`.
    series : str
        Series Instance UID: of a folder, only this series is looked at; empty: all.
    progress : Progress
        Receives one step per file that is indexed, and the steps of the catalog.

    Returns
    -------
    SourceCohort
        The cohort file and the numbers of the selection.

    Raises
    ------
    UsageError
        BAD_PARAMETER: the source is of no known form, or images that are not DICOM; NOT_FOUND: there is no such file or
        folder; EMPTY_INPUT, NO_CT: a folder holds no DICOM instance, or no CT; EMPTY_COHORT: no series can be used; the
        errors of the catalog.
    """
    path = Path(source)
    if path.is_file() and path.suffix == ".parquet":
        return SourceCohort(path=path)
    if path.is_dir() and series:
        file = _index(path, folder, progress)
        selection = _from_query(_QUERY, f"folder:{file}", {"series": [series]}, progress)
    else:
        selection = _select(source, path, folder, catalog, progress)
    counts = Counter(selection.excluded["reason"].to_pylist())
    out = folder / "cohort.parquet"
    write_cohort(selection, out)
    found = SourceCohort(
        path=out, selected=len(selection.cohort.series), excluded=tuple(counts.most_common()), notes=selection.notes
    )
    if not selection.cohort.series:
        hint = "the page Troubleshooting explains each reason"
        if not counts:
            message = f"{source}: no CT series was found"
            hint = "check the spelling: collections are written like nsclc_radiomics, patients like LUNG1-001"
            raise UsageError(Reason.EMPTY_COHORT, message, hint)
        raise UsageError(Reason.EMPTY_COHORT, str(found), hint)
    return found


def _select(source: str, path: Path, folder: Path, catalog: str, progress: Progress) -> Selection:
    """Run the selection that fits the form of the source."""
    if path.is_dir():
        file = _index(path, folder, progress)
        return _from_query(_QUERY, f"folder:{file}", {}, progress)
    if path.is_file():
        return _from_list(path, catalog, progress)
    kind, _, rest = source.partition(":")
    if kind == "folder" and rest:
        return _from_query(_QUERY, source, {}, progress)
    if kind == "idc":
        collection, slash, patient = rest.partition("/")
        if not collection or (slash and not patient):
            hint = "for example idc:nsclc_radiomics or idc:nsclc_radiomics/LUNG1-001"
            raise UsageError(Reason.BAD_PARAMETER, f"{source!r} names no collection or patient", hint)
        parameters = {"collections": [collection], "patients": [patient] if patient else []}
        return _from_query(_IDC_QUERY, "idc", parameters, progress)
    raise UsageError(Reason.NOT_FOUND, f"there is no file or folder {source}", f"give {_FORMS}")


def _index(images: Path, folder: Path, progress: Progress) -> Path:
    """Index a folder of images; returns the catalog file."""
    if (images / "run.json").is_file():
        hint = f"to go on with it, give its cohort: ctenrich run {images.name}/cohort.parquet --out {images.name}"
        raise UsageError(Reason.BAD_PARAMETER, f"{images.name} is the folder of a run, not of images", hint)
    if folder.resolve().is_relative_to(images.resolve()):
        message = "the run's folder is inside the folder of images, whose next index would take its results for input"
        raise UsageError(Reason.BAD_PARAMETER, message, "choose an --out beside it")
    file = folder / "catalog.duckdb"
    try:
        progress.note(str(index_folders([images], file, progress=progress)))
    except InputError as error:
        if error.reason not in (Reason.EMPTY_INPUT, Reason.NO_CT):
            raise
        others = sorted({_image_suffix(other.name) for other in islice(images.rglob("*"), _LOOKED_AT)} - {""})
        if others and error.reason is Reason.EMPTY_INPUT:
            raise _not_dicom(f"{images.name} holds {', '.join(others)} files, and no DICOM") from error
        message = f"{images} is empty" if next(images.iterdir(), None) is None else f"{images}: {error.message}"
        raise UsageError(error.reason, message, error.hint) from error
    return file


def _from_query(query: str, catalog: str, parameters: Mapping[str, object], progress: Progress) -> Selection:
    with closing(open_catalog(catalog)) as opened:
        return select_cohort(query, opened, parameters, progress=progress)


def _from_list(path: Path, catalog: str, progress: Progress) -> Selection:
    if path.suffix not in LISTS:
        if _image_suffix(path.name):
            raise _not_dicom(f"{path.name} is no DICOM")
        if path.suffix.lower() in _ARCHIVES:
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is an archive", "unpack it, and give the folder")
        if _is_dicom(path):
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is one DICOM file", "give the folder that it is in")
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is none of the inputs of run", f"give {_FORMS}")
    series = read_series_list(path)
    with closing(open_catalog(catalog)) as opened:
        return select_series_list(series, opened, progress=progress)


def _is_dicom(path: Path) -> bool:
    """Whether a file has the prefix of DICOM's file format (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _image_suffix(name: str) -> str:
    return next((suffix for suffix in _NOT_DICOM if name.lower().endswith(suffix)), "")


def _not_dicom(message: str) -> UsageError:
    """Say what is missing from images of other formats, and what can be done."""
    hint = (
        "results refer to the DICOM slices that they were made from, and such files do not name them: "
        "give the DICOM series. Masks of a run can be exported to NIfTI and NRRD (ctenrich export)"
    )
    return UsageError(Reason.BAD_PARAMETER, message, hint)
