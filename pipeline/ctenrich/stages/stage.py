"""Interface of a stage and the context that it runs in: one series, or one product of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import EncodingError
from ctenrich.inference.kinds import SegmenterKind, segmenter_kind
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Product, SeriesEntry
from ctenrich.series_store import ProductRecords, SeriesStore

if TYPE_CHECKING:
    from ctenrich.inference.model_cache import ModelCache
    from ctenrich.inference.products import RequestedProduct
    from ctenrich.progress import Progress
    from ctenrich.settings import Settings
    from ctenrich.workspace import Workspace

__all__ = ["Stage", "StageContext", "StageFindingsError", "StageResult", "WorkerPool"]


class WorkerPool(StrEnum):
    """Pool of workers that runs a stage."""

    INPUT = "input"
    INFER = "infer"
    OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """One series, or one product of it, with everything that its stages need."""

    entry: SeriesEntry
    requested: RequestedProduct | None
    """None for the series itself."""
    settings: Settings
    workspace: Workspace
    models: ModelCache
    progress: Progress
    scorer: Product | None = None
    """Product whose slice scores a crop is derived from; None: the run has none."""

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return self.entry.series_instance_uid

    @cached_property
    def store(self) -> SeriesStore:
        """The records on disk."""
        return SeriesStore(self.workspace)

    @property
    def product(self) -> Product:
        """The product; only for stages of products."""
        assert self.requested is not None, "a stage of products runs for a product"
        return self.requested.product

    @property
    def kind(self) -> SegmenterKind:
        """Descriptor of the product's kind; only for stages of products."""
        return segmenter_kind(self.product.kind)

    @property
    def records(self) -> ProductRecords:
        """Records of the product and of its series; only for stages of products."""
        return self.store.product(self.uid, self.product)

    @property
    def folder(self) -> Path:
        """Folder of the product, or of the series."""
        return self.store.folder(self.uid, self.requested.product if self.requested else None)

    def resolve(self, path: str) -> Path:
        """Return the absolute path of a path in a record of the series."""
        return self.workspace.resolve(self.uid, path)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Result of a stage."""

    files: tuple[Path, ...]
    """Files that the stage wrote, which the manifest lists."""
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the stage table."""

    name: str
    version: int
    """Increased by hand when a change of the code changes the result."""
    pool: WorkerPool
    """Workers that run it."""
    cache_key_inputs: Callable[[StageContext], Iterable[str]]
    """Inputs, in addition to name and version, whose change makes the stage run again."""
    run: Callable[[StageContext], StageResult]
    """Does the work and saves its records."""


class StageFindingsError(EncodingError):
    """Errors found by a check; they are kept as issues, and the product fails."""

    def __init__(self, reason: Reason, message: str, issues: tuple[Issue, ...]) -> None:
        super().__init__(reason, message)
        self.issues = issues

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.message, self.issues)
