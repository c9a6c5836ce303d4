"""A run's folder: the requested products, the settings and the cohort."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.codes.mappings import use_mappings
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.rows import ProductKey
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.select.cohort_file import open_cohort, uids_of
from ctenrich.settings import Settings
from ctenrich.workspace import DIVIDED_FORMAT, FORMAT, RUN_FILE, Workspace, load_record

__all__ = ["COHORT", "INPUT", "LEDGER", "STEM", "Run", "RunConfig", "added_products", "locked", "products_of_run"]

LEDGER = "ledger.sqlite"
"""Name of the ledger."""
STEM = "cohort"
"""Beginning of the names of the cohort's files in a run."""
COHORT = f"{STEM}.parquet"
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

    Use :func:`ctenrich.runner.creation.create_run` for a new run and :meth:`open` for one that exists.
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
        return self.root / LEDGER

    @classmethod
    def open(cls, root: Path) -> Run:
        """Open a run's folder.

        Raises
        ------
        UsageError
            BAD_RUN if the folder is not a run, was made by another version, or its cohort was changed.
        """
        path = Path(root) / RUN_FILE
        if not path.is_file():
            what = "is not a run's folder" if Path(root).exists() else "does not exist"
            raise UsageError(Reason.BAD_RUN, f"{root} {what}", "give the folder named --out")
        try:
            found = json.loads(path.read_bytes()).get("format")
        except (ValueError, AttributeError):
            found = None
        if found not in (FORMAT, DIVIDED_FORMAT):
            message = f"the run has format {found}, this software reads {FORMAT} and {DIVIDED_FORMAT}"
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
        with locked(self.root):
            path = self.root / RUN_FILE
            newest = load_record(path, RunConfig).products if path.is_file() else ()
            products = added_products(tuple(p for p in newest if p.missing is None), self.config.products)
            yield Run(self.root, replace(self.config, products=products), self.cohort).jobs()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runners from starting in a folder during the block; the system ends the lock of a killed process.

    Parameters
    ----------
    folder : Path
        The run's folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def products_of_run(root: Path) -> tuple[RequestedProduct, ...]:
    """Products of the run in a folder; none if there is no run, or one that cannot be read (:meth:`Run.open` says why).

    Parameters
    ----------
    root : Path
        The run's folder.
    """
    try:
        return load_record(root / "run.json", RunConfig).products
    except (CtenrichError, OSError):
        return ()


def added_products(
    first: Sequence[RequestedProduct], further: Sequence[RequestedProduct]
) -> tuple[RequestedProduct, ...]:
    """The first products that are not asked for again, then the further ones, as `request_products` orders them.

    Parameters
    ----------
    first : sequence of RequestedProduct
        Products that a run has.
    further : sequence of RequestedProduct
        Products that are asked for.
    """
    asked = {str(p.product) for p in further}
    return (*(p for p in first if str(p.product) not in asked), *further)
