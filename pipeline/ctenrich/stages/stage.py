"""A stage and what it is done to: one series, or one product of it, with all that is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, ProductKind, SeriesEntry

if TYPE_CHECKING:
    from ctenrich.progress import Progress
    from ctenrich.runner.model_cache import ModelCache
    from ctenrich.runner.products import RequestedProduct
    from ctenrich.settings import Settings
    from ctenrich.workspace import Workspace

__all__ = ["Stage", "StageContext", "StageFindingsError"]


@dataclass(frozen=True)
class StageContext:
    """One series, or one product of it, with all that its stages need."""

    entry: SeriesEntry
    plan: RequestedProduct | None
    settings: Settings
    workspace: Workspace
    models: ModelCache
    progress: Progress

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return self.entry.series_instance_uid

    @property
    def folder(self) -> Path:
        """Folder of the product, or of the series."""
        if self.plan is None:
            return self.workspace.series_dir(self.uid)
        return self.workspace.product_dir(self.uid, self.plan.product)

    @property
    def series_dir(self) -> Path:
        """Folder of the series."""
        return self.workspace.series_dir(self.uid)

    @property
    def kind(self) -> ProductKind | None:
        """Kind of the product; None for the series itself."""
        return None if self.plan is None else self.plan.product.kind

    @property
    def common(self) -> dict[str, Any]:
        """Keyword arguments that every stage takes."""
        return {"settings": self.settings, "workspace": self.workspace, "progress": self.progress}


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: str
    version: int
    """Raised by hand when the stage's code gives another result."""
    pool: str
    """``input``, ``infer`` or ``output``: which workers run it."""
    cache_key_inputs: Callable[[StageContext], Iterable[str]]
    """What, beside name and version, makes the stage run again when it changes."""
    work: Callable[[StageContext], tuple[list[Path], tuple[Issue, ...]]]
    """Does it; returns the files that it made and the issues that it found."""


class StageFindingsError(EncodingError):
    """A check found errors: they are kept as issues, and the product fails."""

    def __init__(self, reason: Reason, message: str, issues: tuple[Issue, ...]) -> None:
        super().__init__(reason, message)
        self.issues = issues

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.message, self.issues)
