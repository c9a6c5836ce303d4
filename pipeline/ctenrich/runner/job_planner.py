"""Which jobs a series needs: its input first, then a job for each product and pool, the series' own output last."""

from __future__ import annotations

from collections.abc import Iterable

from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import RequestedProduct
from ctenrich.records import SeriesEntry
from ctenrich.runner.job import Job
from ctenrich.runner.products import find_scorer
from ctenrich.runner.run import RunConfig
from ctenrich.stages.order import SERIES_STAGES, STAGE_POOLS, product_stages, series_output

__all__ = ["JobPlanner"]

_PRODUCT_POOLS = ("infer", "output")


class JobPlanner:
    """Makes jobs; starts none.

    Parameters
    ----------
    config : RunConfig
        Products and settings of the run.
    stages : iterable of str
        Stages that the runner is to run.
    """

    def __init__(self, config: RunConfig, stages: Iterable[str]) -> None:
        self._config = config
        self.stages = frozenset(stages)
        """Stages that the runner is to run."""
        self._scorer = find_scorer(config.products)

    @property
    def with_all_stages(self) -> bool:
        """Whether no stage is left out."""
        return self.stages == frozenset(STAGE_POOLS)

    @property
    def with_last_stage(self) -> bool:
        """Whether products are taken to their end, so that they get an outcome."""
        return "validate" in self.stages

    @property
    def with_input(self) -> bool:
        """Whether a stage of the series itself, before its products, is to run."""
        return not self.stages.isdisjoint(SERIES_STAGES)

    @property
    def with_fetch(self) -> bool:
        """Whether objects are fetched."""
        return "fetch" in self.stages

    def input_job(self, entry: SeriesEntry, prefetch: tuple[SeriesEntry, ...] = ()) -> Job:
        """Return the first job of a series; it has no stages if the run starts after the input.

        Parameters
        ----------
        entry : SeriesEntry
            The series.
        prefetch : tuple of SeriesEntry
            Series whose objects its fetch transfers too.
        """
        return Job(
            entry=entry, pool="input", stages=self._chosen(SERIES_STAGES), prefetch=prefetch, scorer=self._scorer
        )

    def product_job(self, entry: SeriesEntry, requested: RequestedProduct, after: Job | None = None) -> Job | None:
        """Return the next job of a product; None if it has no further stage.

        Parameters
        ----------
        entry : SeriesEntry
            The series.
        requested : RequestedProduct
            The product.
        after : Job, optional
            The job of this product that came back; None: the product starts.
        """
        pools = _PRODUCT_POOLS if after is None else _PRODUCT_POOLS[_PRODUCT_POOLS.index(after.pool) + 1 :]
        for pool in pools:
            stages = self._chosen(
                s for s in product_stages(requested.product.kind, self._config.settings) if STAGE_POOLS[s] == pool
            )
            if stages:
                return Job(entry=entry, plan=requested, pool=pool, stages=stages, scorer=self._scorer)
        return None

    def series_output_job(self, entry: SeriesEntry) -> Job | None:
        """Return the job of the series itself that no product waits for; None if there is nothing to do."""
        stages = self._chosen(series_output(self._config.settings))
        return Job(entry=entry, pool="output", stages=stages) if stages else None

    def waits_for_scores(self, job: Job) -> bool:
        """Return whether a job needs the slice scores of its series, which determine the crop."""
        crops = bool(self._config.settings.segment.crop) and "score" in self.stages
        return (
            crops and job.plan is not None and job.pool == "infer" and segmenter_kind(job.plan.product.kind).takes_crop
        )

    def _chosen(self, stages: Iterable[str]) -> tuple[str, ...]:
        return tuple(stage for stage in stages if stage in self.stages)
