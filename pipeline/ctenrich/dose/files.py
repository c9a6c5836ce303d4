"""Dose metrics from files: a structure set, the files of one dose, and optionally the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctenrich.contours.raster import grid_of
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.series import SourceFolder
from ctenrich.dose.reader import Dose, join_planes, read_dose
from ctenrich.dose.structures import DoseOptions, StructureDose, structure_doses
from ctenrich.dose.table import DoseSource
from ctenrich.dose.vendor_dvh import CalculatedDose, check_vendor_dvhs, confirm_vendor_dvhs, read_vendor_dvhs
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity

__all__ = ["DoseFiles", "FileDoses", "doses_of_files", "load_dose"]


@dataclass(frozen=True, kw_only=True)
class DoseFiles:
    """The files of one calculation."""

    structures: Path
    """RT Structure Set."""
    doses: tuple[Path, ...]
    """One RT Dose, or the files of all planes of one."""
    images: Path | None = None
    """Folder of the CT series on which the structures were drawn."""


@dataclass(frozen=True, kw_only=True)
class FileDoses:
    """Dose metrics of the structures of a file."""

    structures: tuple[StructureDose, ...]
    source: DoseSource
    issues: tuple[Issue, ...]


def load_dose(paths: Sequence[Path]) -> Dose:
    """Read one dose, from one file or from one file per plane.

    Raises
    ------
    UsageError
        BAD_PARAMETER for several files of which one has several frames.
    InputError
        As :func:`ctenrich.dose.reader.read_dose` and :func:`ctenrich.dose.reader.join_planes`.
    """
    doses = [read_dose(path) for path in paths]
    if len(doses) == 1:
        return doses[0]
    if any(dose.grid.shape[0] > 1 for dose in doses):
        text = "several doses were given, and not the single planes of one"
        raise UsageError(Reason.BAD_PARAMETER, text, "add doses with ctenrich dose sum")
    return join_planes(doses)


def doses_of_files(files: DoseFiles, options: DoseOptions, *, progress: Progress = SILENT) -> FileDoses:
    """Dose metrics of the structures of a file.

    Parameters
    ----------
    files : DoseFiles
    options : DoseOptions
    progress : Progress

    Returns
    -------
    FileDoses

    Raises
    ------
    InputError
        As :func:`ctenrich.dose.structures.structure_doses` and the readers of the files.
    UsageError
        BAD_PARAMETER where the names of `options` fit no ROI.
    """
    dose = load_dose(files.doses)
    structures = load_contours(files.structures)
    grid = None
    if files.images is not None:
        referenced = sorted(structures.series_instance_uids)
        folder = SourceFolder(files.images)
        grid = grid_of(folder.find_series(referenced[0] if len(referenced) == 1 else ""))
    vendor = read_vendor_dvhs(open_dataset(files.doses[0])) if dose.has_dvh else ()
    found = tuple(structure_doses(structures, dose, options, grid=grid, progress=progress))
    if options.rois and not found:
        names = ", ".join(sorted(roi.name for roi in structures.rois))
        raise UsageError(Reason.BAD_PARAMETER, "no ROI has such a name", f"ROIs: {names[:300]}")
    uid = dose.sop_instance_uid
    confirmed, faults = confirm_vendor_dvhs(vendor, list(_calculated(found)), uid)
    source = DoseSource(structure_set=structures.sop_instance_uid, dose=uid, summation=dose.summation, vendor=confirmed)
    issues = (*_of_a_part(dose), *dose.issues, *check_vendor_dvhs(vendor, uid), *faults)
    return FileDoses(structures=found, source=source, issues=issues)


def _of_a_part(dose: Dose) -> Iterator[Issue]:
    """The dose of a beam or a fraction is not that of the treatment."""
    if dose.part:
        text = f"Dose Summation Type is {dose.part}: the metrics are those of this part, not of the plan"
        yield Issue("dose.part", Severity.WARNING, dose.sop_instance_uid, text, checker="ctenrich.dose")


def _calculated(structures: Iterable[StructureDose]) -> Iterator[CalculatedDose]:
    """Volume and mean of the structures that the dose grid covers, from their curves."""
    for one in structures:
        doses, volumes = one.curve
        if one.reason is None and one.coverage == 1 and volumes.size and volumes[0]:
            mean = float(np.trapezoid(volumes, doses) / volumes[0])
            yield CalculatedDose(number=one.number, name=one.name, volume=float(volumes[0]), mean=mean)
