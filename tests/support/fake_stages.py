"""A table of two small stages, the second of which depends on the file of the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctenrich.inference.model_cache import ModelCache
from ctenrich.progress import SILENT
from ctenrich.settings import Settings
from ctenrich.stages.stage import Stage, StageContext, StageResult, WorkerPool
from ctenrich.workspace import Workspace, sha256_of_file
from tests.support.runner_cases import series


@dataclass
class FakeStages:
    """Stages ``first`` and ``second``; a test may change what they write and whether they fail."""

    text: str = "one"
    error: Exception | None = None
    calls: list[str] = field(default_factory=list)

    def table(self, **versions: int) -> dict[str, Stage]:
        def run_first(context: StageContext) -> StageResult:
            return self._write(context, "first", self.text)

        def run_second(context: StageContext) -> StageResult:
            return self._write(context, "second", (context.folder / "first.txt").read_text() + " and two")

        def digest(context: StageContext) -> list[str]:
            return [sha256_of_file(context.folder / "first.txt")]

        nothing: Callable[[StageContext], list[str]] = lambda _: []  # noqa: E731
        stages = (
            Stage(name="first", version=1, pool=WorkerPool.OUTPUT, cache_key_inputs=nothing, run=run_first),
            Stage(name="second", version=1, pool=WorkerPool.OUTPUT, cache_key_inputs=digest, run=run_second),
        )
        return {s.name: replace(s, version=versions.get(s.name, s.version)) for s in stages}

    def _write(self, context: StageContext, name: str, text: str) -> StageResult:
        self.calls.append(name)
        if self.error is not None:
            raise self.error
        context.folder.mkdir(parents=True, exist_ok=True)
        path = context.folder / f"{name}.txt"
        path.write_text(text)
        return StageResult(files=(path,))


def context_of(root: Path) -> StageContext:
    """The context of a series that exists in memory only."""
    settings = Settings()
    return StageContext(
        entry=series(1), requested=None, settings=settings, workspace=Workspace(root), models=ModelCache(settings),
        progress=SILENT,
    )  # fmt: skip
