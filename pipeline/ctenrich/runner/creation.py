"""Make a run's folder, or add products to the one that is there: everything is checked before any work starts."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ctenrich import __version__
from ctenrich.codes.mappings import use_mappings
from ctenrich.dose.measure import dose_options
from ctenrich.errors import UsageError
from ctenrich.features.kinds import pin_features
from ctenrich.ledger.database import check_database_path
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.runner.products import request_products
from ctenrich.runner.run import COHORT, INPUT, LEDGER, STEM, Run, RunConfig, added_products, locked
from ctenrich.select.cohort_file import check_path, open_cohort, read_cohort, remember_check, sizes_of
from ctenrich.settings import FeaturesSettings, RunSettings, Settings
from ctenrich.shape.pyradiomics import need_radiomics
from ctenrich.shape.pyradiomics_features import Radiomics
from ctenrich.tools import need_package
from ctenrich.workspace import DIVIDED_FORMAT, FORMAT, RUN_FILE, atomic_path, save_record, sync_folders

__all__ = ["create_run", "need_products", "run_format"]


def create_run(
    cohort_file: Path,
    out: Path,
    *,
    segmenters: Sequence[str] = (),
    bodypart: str = "none",
    settings: Settings | None = None,
    allow_demo: bool = False,
) -> Run:
    """Make a run's folder, or update the one that is there (what did not change is not done again).

    Products are added to those of an existing run, which keeps its own: their objects stay part of it.

    Parameters
    ----------
    cohort_file : Path
        Cohort file.
    out : Path
        The run's folder.
    segmenters : sequence of str
        Specifications as typed, e.g. ``expert`` or ``nnunet:MODEL``.
    bodypart : str
        Name or folder of a body part regression model, or ``none``.
    settings : Settings, optional
        Default settings if missing.
    allow_demo : bool
        Whether demonstration models are accepted on every series.

    Returns
    -------
    Run
        The run.

    Raises
    ------
    UsageError
        BAD_RUN if the folder holds another cohort, is something else or has too long a path; BAD_COHORT,
        DEMO_MODEL, BAD_PARAMETER; BAD_MAPPING if the user's mappings cannot be used.
    ModelError
        What is wrong with a model: found here, before any work.
    """
    settings = _absolute_mappings(settings or Settings())
    cohort = read_cohort(cohort_file)
    if not cohort.series:
        raise UsageError(Reason.EMPTY_COHORT, "the cohort has no series", "look at NAME.excluded.parquet for why")
    if any(size.storage == "unknown" for size in sizes_of(cohort)):
        hint = "select again on this computer: ctenrich select --lock NAME.lock.json --catalog folder:FILE"
        raise UsageError(Reason.BAD_COHORT, "the cohort was written without the paths of its files", hint)
    out = Path(out)
    check_database_path(out / LEDGER)
    with locked(out) if _is_folder(out) else nullcontext():
        found = _existing_run(out, cohort, cohort_file)
    use_mappings(settings.codes.mappings)  # after those of the existing run
    if found is not None and not settings.doses.enabled:  # as with products: what the run has stays part of it
        settings = replace(settings, doses=found.config.settings.doses)
    settings = _with_feature_models(settings, found.config.settings if found else None)
    kept = found.config.products if found else ()
    products = request_products(
        tuple(segmenters), bodypart, settings=settings, allow_demo=allow_demo, kept=kept, cohort=cohort
    )
    need_products(products)
    _check_engines(settings)
    _make_folder(out)
    with locked(out):  # another runner may have made the run, or added products to it, meanwhile
        found = _existing_run(out, cohort, cohort_file)
        if found is not None:
            use_mappings(settings.codes.mappings)
            products = added_products(found.config.products, products)
        demo = allow_demo or (found is not None and found.config.demo)
        chosen = found.config.format if found is not None else run_format(len(cohort.series), settings.run)
        config = RunConfig(chosen, __version__, cohort.name, cohort.sha256, products, settings, demo)
        _copy_cohort(cohort_file, out)
        remember_check(out / COHORT, cohort)
        save_record(out / RUN_FILE, config, durable=True)
    sync_folders([out.absolute().parent])
    return Run(out, config, open_cohort(out / COHORT))


def run_format(series: int, settings: RunSettings) -> int:
    """Return the format of a new run; it is that of the run for good, whatever the settings of later starts are.

    Parameters
    ----------
    series : int
        Number of series of the cohort.
    settings : RunSettings
        States from which number on the folders of the series are divided.
    """
    return DIVIDED_FORMAT if 0 < settings.divide_folders_from <= series else FORMAT


def need_products(products: Sequence[object]) -> None:
    """Refuse a run without products.

    Parameters
    ----------
    products : sequence
        Products that the run would have.

    Raises
    ------
    UsageError
        NO_MODEL.
    """
    if not products:
        message = "nothing to do: neither a segmenter nor a body part model was named"
        hint = "add --segmenter expert, --segmenter nnunet:MODEL or --bodypart MODEL"
        raise UsageError(Reason.NO_MODEL, message, hint)


def _absolute_mappings(settings: Settings) -> Settings:
    chosen = settings.codes.mappings
    if not chosen:
        return settings
    return replace(settings, codes=replace(settings.codes, mappings=str(Path(chosen).resolve())))


def _is_folder(out: Path) -> bool:
    try:
        return out.is_dir()
    except OSError as error:
        raise _unusable_folder(error) from error


def _existing_run(out: Path, cohort: Cohort, cohort_file: Path) -> Run | None:
    """Open the run that `out` is; None for a folder that is empty or does not exist, an error for anything else.

    A folder that has only what :meth:`Run.create` writes before ``run.json`` is that of a process that was killed then.
    """
    try:
        if (out / RUN_FILE).exists():
            found = Run.open(out)
            if found.config.cohort_sha256 != cohort.sha256:
                made_here = cohort_file.parent.resolve() == (out / INPUT).resolve()
                raise _other_cohort(out, made_here=made_here)
            return found
        if out.exists() and (not out.is_dir() or not all(_is_begun(file, cohort_file) for file in out.iterdir())):
            raise UsageError(Reason.BAD_RUN, "the folder is not empty and not a run", "choose a new --out folder")
    except OSError as error:
        raise _unusable_folder(error) from error
    return None


def _is_begun(file: Path, cohort_file: Path) -> bool:
    """Whether a file in a folder without ``run.json`` was left by a process that was killed while it made this run."""
    if file.name == INPUT or file.name == check_path(Path(COHORT)).name:
        return True
    if file.name.startswith(f".{STEM}.") or file.name.startswith(".run.json."):
        return file.name.endswith(".tmp")
    source = next((source for source, name in _copies(cohort_file) if name == file.name), None)
    return source is not None and source.is_file() and filecmp.cmp(source, file, shallow=False)


def _other_cohort(out: Path, *, made_here: bool) -> UsageError:
    if not made_here:
        return UsageError(Reason.BAD_RUN, "the folder is a run of another cohort", "choose a new --out folder")
    message = "the series that are selected now are not those of this run: images or rules changed since it was made"
    hint = f"choose a new --out for them, or go on with the run's own: ctenrich run {out}/cohort.parquet --out {out}"
    return UsageError(Reason.BAD_RUN, message, hint)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable_folder(error) from error


_UNUSABLE_NAME = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EINVAL})


def _unusable_folder(error: OSError) -> Exception:
    """Return a UsageError if the name is why the folder cannot be made; otherwise (a full disk, rights) `error`."""
    if error.errno not in _UNUSABLE_NAME:
        return error
    text = os.strerror(error.errno).lower()
    return UsageError(Reason.BAD_RUN, f"the run's folder cannot be made: {text}", "choose another --out folder")


def _copies(cohort_file: Path) -> Iterator[tuple[Path, str]]:
    """Files of a cohort, and their names in the folder of a run."""
    stem = cohort_file.name.removesuffix(".parquet")
    for suffix in (".parquet", ".excluded.parquet", ".lock.json"):
        yield cohort_file.with_name(stem + suffix), f"{STEM}{suffix}"


def _copy_cohort(cohort_file: Path, out: Path) -> None:
    """Keep the cohort, what was excluded and the lock with the run."""
    for source, name in _copies(cohort_file):
        target = out / name
        if not source.is_file() or (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            continue
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _with_feature_models(settings: Settings, kept: Settings | None) -> Settings:
    """Add the feature models of an existing run, and the identity of every model."""
    names = (*(kept.features.models if kept else ()), *settings.features.models)
    return replace(settings, features=FeaturesSettings(models=pin_features(names)))


def _check_engines(settings: Settings) -> None:
    """Raise MISSING_EXTRA or BAD_SETTINGS for an engine that cannot be used, before a folder is made."""
    dose_options(settings.doses)
    if settings.measure.engine == "pyradiomics":
        need_radiomics('measure.engine = "pyradiomics"')
    if settings.measure.radiomics:
        Radiomics(Path(settings.measure.radiomics))
    if settings.segment.engine == "reference":
        need_package("nnunetv2", extra="reference", purpose='segment.engine = "reference"')
