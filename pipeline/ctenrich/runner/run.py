"""A run's folder: the requested products, the settings and the cohort."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich import __version__
from ctenrich.codes.mappings import use_mappings
from ctenrich.dose.measure import dose_options
from ctenrich.errors import UsageError
from ctenrich.features.kinds import pin_features
from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.database import check_database_path
from ctenrich.ledger.rows import ProductKey
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.runner.products import request_products
from ctenrich.select import open_cohort, read_cohort, remember_check, sizes_of, uids_of
from ctenrich.select.cohort_file import check_path
from ctenrich.settings import FeaturesSettings, Settings
from ctenrich.shape.pyradiomics import need_radiomics
from ctenrich.shape.pyradiomics_features import Radiomics
from ctenrich.tools import need_package
from ctenrich.workspace import Workspace, atomic_path, load_record, save_record, sync_folders

__all__ = ["COHORT", "INPUT", "Run", "RunConfig", "need_products"]

_FORMAT = 1
_LEDGER = "ledger.sqlite"
_STEM = "cohort"
COHORT = f"{_STEM}.parquet"
"""The run's own copy of its cohort file."""
INPUT = "input"
"""Folder of a run for the catalog and the cohort file that were made for it; it may be there before the run."""


@dataclass(frozen=True)
class RunConfig:
    """Content of ``run.json``: the requested products and the settings."""

    format: int
    version: str
    cohort_name: str
    cohort_sha256: str
    products: tuple[RequestedProduct, ...]
    settings: Settings
    demo: bool = False


class Run:
    """A run's folder, opened.

    Use :meth:`create` for a new run and :meth:`open` for one that exists.
    """

    def __init__(self, root: Path, config: RunConfig, cohort: Cohort) -> None:
        self.workspace = Workspace(root)
        self.config = config
        self.cohort = cohort

    @property
    def root(self) -> Path:
        """The folder."""
        return self.workspace.root

    @property
    def ledger_path(self) -> Path:
        """``ledger.sqlite``."""
        return self.root / _LEDGER

    @classmethod
    def create(
        cls,
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
        check_database_path(out / _LEDGER)
        with _locked(out) if _is_folder(out) else nullcontext():
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
        with _locked(out):  # another runner may have made the run, or added products to it, meanwhile
            found = _existing_run(out, cohort, cohort_file)
            if found is not None:
                use_mappings(settings.codes.mappings)
                products = _added(found.config.products, products)
            demo = allow_demo or (found is not None and found.config.demo)
            config = RunConfig(_FORMAT, __version__, cohort.name, cohort.sha256, products, settings, demo)
            _copy_cohort(cohort_file, out)
            remember_check(out / COHORT, cohort)
            save_record(out / "run.json", config, durable=True)
        sync_folders([out.absolute().parent])
        return cls(out, config, open_cohort(out / COHORT))

    @classmethod
    def open(cls, root: Path) -> Run:
        """Open a run's folder.

        Raises
        ------
        UsageError
            BAD_RUN if the folder is not a run, was made by another version, or its cohort was changed.
        """
        path = Path(root) / "run.json"
        if not path.is_file():
            what = "is not a run's folder" if Path(root).exists() else "does not exist"
            raise UsageError(Reason.BAD_RUN, f"{root} {what}", "give the folder named --out")
        try:
            found = json.loads(path.read_bytes()).get("format")
        except (ValueError, AttributeError):
            found = None
        if found != _FORMAT:
            message = f"the run has format {found}, this software reads {_FORMAT}"
            raise UsageError(Reason.BAD_RUN, message, "use the version that made it, or start a new run folder")
        config = load_record(path, RunConfig)
        config = replace(config, products=tuple(p for p in config.products if p.missing is None))
        cohort = open_cohort(Path(root) / COHORT)
        if cohort.sha256 != config.cohort_sha256:
            raise UsageError(Reason.BAD_COHORT, "the run's cohort file was changed", "start a new run folder")
        # A finished run can be read, shown and published without the user's mappings; its stages need them.
        use_mappings(config.settings.codes.mappings if Path(config.settings.codes.mappings).is_dir() else "")
        return cls(Path(root), config, cohort)

    @property
    def product_names(self) -> tuple[str, ...]:
        """What ends in an outcome for each series: the series itself (``""``), then every product."""
        return ("", *(str(p.product) for p in self.config.products))

    def jobs(self) -> Iterator[ProductKey]:
        """Every product that must end in an outcome; of each series, the series itself (product ``""``) first."""
        names = self.product_names
        return (ProductKey(uid, name) for uid in uids_of(self.cohort) for name in names)

    @property
    def number_of_jobs(self) -> int:
        """Number of :meth:`jobs`."""
        return len(self.cohort.series) * len(self.product_names)

    @contextmanager
    def planned_jobs(self) -> Iterator[Iterator[ProductKey]]:
        """All jobs of the run at this moment, those of products that other runners have added too.

        No runner adds a product until the block is left, so that a plan that is recorded in it is complete.
        """
        with _locked(self.root):
            path = self.root / "run.json"
            newest = load_record(path, RunConfig).products if path.is_file() else ()
            products = _added(tuple(p for p in newest if p.missing is None), self.config.products)
            yield Run(self.root, replace(self.config, products=products), self.cohort).jobs()


def need_products(products: Sequence[object]) -> None:
    """Refuse a run without products.

    Raises
    ------
    UsageError
        NO_MODEL.
    """
    if not products:
        message = "nothing to do: neither a segmenter nor a body part model was named"
        hint = "add --segmenter expert, --segmenter nnunet:MODEL or --bodypart MODEL"
        raise UsageError(Reason.NO_MODEL, message, hint)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runners from starting in a folder during the block; the system ends the lock of a killed process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _added(first: Sequence[RequestedProduct], further: Sequence[RequestedProduct]) -> tuple[RequestedProduct, ...]:
    """The first products that are not asked for again, then the further ones, as `request_products` orders them."""
    asked = {str(p.product) for p in further}
    return (*(p for p in first if str(p.product) not in asked), *further)


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
        if (out / "run.json").exists():
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
    if file.name.startswith(f".{_STEM}.") or file.name.startswith(".run.json."):
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
        yield cohort_file.with_name(stem + suffix), f"{_STEM}{suffix}"


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
