"""Results of a built-in product as files for the steps that read them: DICOM objects, structure sets, NIfTI."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ctenrich.encode.rtstruct import StructureSetOptions
from ctenrich.errors import InputError
from ctenrich.flows.builtin import BODYPART
from ctenrich.flows.records import ResultFormat, Step
from ctenrich.inference.products import absolute, absolute_specification
from ctenrich.publish.export import export_run
from ctenrich.publish.structure_sets import export_structure_sets, names_of_tg263
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind, State
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore

__all__ = ["objects_of_step", "write_results"]


def objects_of_step(run: Run, step: Step) -> list[Path]:
    """Return the DICOM objects of a step in a run, sorted.

    Parameters
    ----------
    run : Run
        The run.
    step : Step
        A built-in product of it.

    Returns
    -------
    list of Path
    """
    return list(run.workspace.object_files(_product(run, step).folder))


def write_results(run: Run, step: Step, folder: Path) -> None:
    """Write the results of a step as the files that other steps read: ``FOLDER/<series>/...``.

    Parameters
    ----------
    run : Run
        The run.
    step : Step
        A built-in product of it; its `formats` state what is written: objects as they are, ``structures.dcm``, and for
        each segment ``<number>_<label>.nii.gz``, with ``labels.nii.gz`` and ``segments.json``.
    folder : Path
        Made anew.

    Raises
    ------
    InputError
        The reason for which a result cannot be written in a format.
    """
    product = _product(run, step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if ResultFormat.DICOM in step.formats:
        for path in objects_of_step(run, step):
            _copy(path, folder / path.parent.parent.parent.name / path.name)
    with TemporaryDirectory(prefix=".results-", dir=folder.parent) as scratch:
        if ResultFormat.RTSTRUCT in step.formats:
            _write_structure_sets(run, product, Path(scratch) / "rtstruct", folder)
        if ResultFormat.NIFTI in step.formats:
            _write_nifti(run, product, Path(scratch) / "nifti", folder)


def _product(run: Run, step: Step) -> Product:
    """Product of a run that a step asked for."""
    if step.use.startswith(BODYPART):
        model = absolute(step.use.removeprefix(BODYPART))
        found = [one for one in run.config.products if (one.product.kind, one.spec) == (ProductKind.BODYPART, model)]
    else:
        found = [one for one in run.config.products if one.spec == absolute_specification(step.use)]
    if len(found) != 1:
        raise InputError(Reason.NOT_PREPARED, f"the run has no product of {step.name}")
    return found[0].product


def _write_structure_sets(run: Run, product: Product, scratch: Path, folder: Path) -> None:
    options = StructureSetOptions(names=names_of_tg263())
    for one in export_structure_sets(run.workspace, scratch, settings=run.config.settings, options=options):
        if one.product != str(product):
            continue
        if one.path is None:
            raise InputError(one.reason or Reason.INTERNAL, f"the structure set of a series: {one.message}")
        _copy(one.path, folder / one.series_instance_uid / "structures.dcm")


def _write_nifti(run: Run, product: Product, scratch: Path, folder: Path) -> None:
    store = SeriesStore(run.workspace)
    if not any((store.folder(uid, product) / "objects").is_dir() for uid in store.series()):
        return
    for one in export_run(run.workspace, "nifti", scratch, limits=run.config.settings.seg).objects:
        if one.path.parent.parent.name != product.folder or one.state is State.SKIPPED:
            continue
        if one.state is State.FAILED:
            raise InputError(one.reason or Reason.INTERNAL, f"the masks of a series as NIfTI: {one.message}")
        for path in one.files:
            _copy(path, folder / one.path.parent.parent.parent.name / path.name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
