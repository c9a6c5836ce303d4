"""Whether a series or product has reached a stage: all stages before it are done, with today's inputs and settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ctenrich.errors import CtenrichError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.inference.products import RequestedProduct
from ctenrich.progress import SILENT
from ctenrich.records import SeriesEntry
from ctenrich.runner.manifest import is_done, stage_key
from ctenrich.runner.products import find_scorer
from ctenrich.runner.run import Run
from ctenrich.settings import Settings
from ctenrich.stages.order import SERIES_STAGES, product_stages
from ctenrich.stages.stage import StageContext
from ctenrich.stages.table import STAGES

__all__ = ["context_of", "has_reached", "stages_done"]


def context_of(
    run: Run, entry: SeriesEntry, requested: RequestedProduct | None, settings: Settings | None = None
) -> StageContext:
    """Return the context of a series or product in this process, without open models.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it.
    requested : RequestedProduct or None
        A product of it; None for the series itself.
    settings : Settings, optional
        Settings that are not those of the run.
    """
    settings = settings or run.config.settings
    return StageContext(
        entry=entry,
        requested=requested,
        settings=settings,
        workspace=run.workspace,
        models=ModelCache(settings),
        progress=SILENT,
        scorer=find_scorer(run.config.products),
    )


def stages_done(context: StageContext, stages: Iterable[str]) -> bool:
    """Return whether stages of a series or product are done with the inputs that they would have now.

    Parameters
    ----------
    context : StageContext
        Series or product.
    stages : iterable of str
        Names of its stages.
    """
    try:
        return all(is_done(STAGES[name], context, stage_key(STAGES[name], context)) for name in stages)
    except CtenrichError:  # a record that the key depends on does not exist
        return False


def has_reached(
    run: Run, entry: SeriesEntry, requested: RequestedProduct | None, stages: tuple[str, ...], running: Collection[str]
) -> bool:
    """Return whether every stage before `stages` is done or is itself about to run.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it.
    requested : RequestedProduct or None
        A product of it; None for the series itself.
    stages : tuple of str
        Stages of one job, in order.
    running : collection of str
        All stages that the runner runs.

    Notes
    -----
    The records of a stage that failed or was not repeated after a change may still be in the folder: that a record
    exists does not mean that the stage is done.
    """
    first = stages[0]
    inputs = SERIES_STAGES[: SERIES_STAGES.index(first)] if first in SERIES_STAGES else SERIES_STAGES
    if not stages_done(context_of(run, entry, None), [name for name in inputs if name not in running]):
        return False
    if requested is None:
        return True
    own = product_stages(requested.product.kind, run.config.settings)
    earlier = [name for name in own[: own.index(first)] if name not in running]
    return stages_done(context_of(run, entry, requested), earlier)
