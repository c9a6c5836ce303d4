"""Copies of a run for other programs and archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctenrich.maps.probabilities import ProbabilityForm, ProbabilityObjects, ProbabilityOptions
from ctenrich.maps.probabilities import export_probabilities as probabilities_of_run
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.export import Export, export_run
from ctenrich.publish.export import export_objects as export_any
from ctenrich.publish.images import export_images as images_beside
from ctenrich.publish.nnunet_raw import RawCase, RawDatasetOptions
from ctenrich.publish.nnunet_raw import export_nnunet_raw as raw_dataset
from ctenrich.release.release import Release, ReleaseOptions, make_release
from ctenrich.runner.run import Run
from ctenrich.settings import SegSettings

__all__ = ["export", "export_images", "export_nnunet_raw", "export_objects", "export_probabilities", "release"]


def export(
    run: Run,
    fmt: str,
    out: str | Path,
    *,
    limits: SegSettings | None = None,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export all results of a run.

    Parameters
    ----------
    run : Run
        The run.
    fmt : str
        ``nifti``, ``nrrd``, ``csv`` or ``dcmqi``.
    out : str or Path
        Folder to write to.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object; default: those of the run's settings.
    accepted_only : bool
        Whether only products are exported that reviewers have accepted.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    Export
        One outcome per object, with the written files.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_PREPARED if the run has no such object.
    """
    limits = limits or run.config.settings.seg
    return export_run(run.workspace, fmt, Path(out), limits=limits, accepted_only=accepted_only, progress=progress)


def export_images(run: Run, found: Export, fmt: str, out: str | Path) -> tuple[Path, ...]:
    """Write the CT beside exported masks, and the table of both for pyradiomics' batch mode.

    Parameters
    ----------
    run : Run
        The run.
    found : Export
        What `export` wrote of it.
    fmt : str
        ``nifti`` or ``nrrd``, as the masks.
    out : str or Path
        Folder of the masks.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another format.
    InputError
        NOT_PREPARED if the run has no volume of a series.
    """
    return images_beside(run.workspace, found, fmt, Path(out))


def export_nnunet_raw(
    run: Run,
    out: str | Path,
    options: RawDatasetOptions,
    *,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> tuple[RawCase, ...]:
    """Write the SEGs of a product as a data set in nnU-Net's raw format.

    Parameters
    ----------
    run : Run
        The run.
    out : str or Path
        Folder of the data sets (``nnUNet_raw``).
    options : RawDatasetOptions
        Product, name and structures.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object; default: those of the run's settings.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    tuple of RawCase
        One outcome per SEG of the product.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a name, product or structure that cannot be, or a folder that exists.
    InputError
        NOT_PREPARED if no series is a case.
    """
    limits = limits or run.config.settings.seg
    return raw_dataset(run.workspace, Path(out), options, limits=limits, progress=progress)


def export_probabilities(
    run: Run,
    form: ProbabilityForm,
    out: str | Path,
    options: ProbabilityOptions | None = None,
    *,
    progress: Progress = SILENT,
) -> tuple[ProbabilityObjects, ...]:
    """Write the probabilities that the networks of a run kept as Parametric Maps or FRACTIONAL segmentations.

    Parameters
    ----------
    run : Run
        The run, made with ``segment.probabilities``.
    form : ProbabilityForm
        Parametric Maps of each structure and of the uncertainty, or a FRACTIONAL segmentation.
    out : str or Path
        Folder to write to.
    options : ProbabilityOptions, optional
        Product and structures.
    progress : Progress
        Receives one step per product.

    Returns
    -------
    tuple of ProbabilityObjects
        One outcome per series and product, with the proven objects.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a product or structure without probabilities; NOT_ACCEPTED if no product is accepted.
    InputError
        NOT_PREPARED if no product kept probabilities.
    """
    settings = run.config.settings.encode
    return probabilities_of_run(run.workspace, form, Path(out), options, settings=settings, progress=progress)


def export_objects(
    paths: Sequence[Path],
    fmt: str,
    out: Path,
    *,
    source: Path | None = None,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> Export:
    """Export SEG and SR objects of any manufacturer.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched.
    fmt : str
        ``nifti``, ``nrrd``, ``csv`` or ``dcmqi``.
    out : Path
        Folder to write to.
    source : Path, optional
        Folder with the series (CT, MR, PET) that SEGs refer to; without it, and where it does not fit, masks have the
        smallest grid that contains their frames.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    Export
        One outcome per DICOM object, with the written files and issues, e.g. the number of referenced instances that
        are missing.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_FOUND if there is no such object.
    """
    return export_any(paths, fmt, out, source=source, limits=limits, progress=progress)


def release(
    run: Run, out: str | Path, *, options: ReleaseOptions | None = None, progress: Progress = SILENT
) -> Release:
    """Write the results of a run as a data set for publication.

    Parameters
    ----------
    run : Run
        The run, with its tables.
    out : str or Path
        Folder to write to; new or empty.
    options : ReleaseOptions, optional
        Statements of the authors, previous release, choice of products.
    progress : Progress
        Receives one step per object and table.

    Returns
    -------
    Release
        Numbers of objects and values, what is still to be stated, and what differs from the previous release.

    Raises
    ------
    UsageError
        BAD_PARAMETER, NOT_FOUND, NOT_PREPARED or IDENTITY_NOT_REMOVED.
    InputError
        HASH_MISMATCH if an object has changed since the tables were written.
    """
    return make_release(run.workspace, Path(out), options=options, progress=progress)
