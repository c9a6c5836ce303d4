"""Forecast the time, disk space and cost of a cohort before anything is run.

The time of a stage is taken as proportional to the number of slices. The rates are those that this machine measured in
earlier runs (they are learned at the end of every run and kept in the user's cache folder), otherwise those that were
measured on a kind of device (:mod:`ctenrich.runner.device_rates`), and the package's estimates for what was not
measured there; the forecast states which. The rest of a run that has begun is forecast from its own ledger.
"""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ctenrich.inference.kinds import find_segmenter_kind, segmenter_kind
from ctenrich.inference.products import RequestedProduct, SegmenterSpec, parse_segmenter, split_alias, with_kept_product
from ctenrich.inference.registry import check_model_name, registry
from ctenrich.ledger.reader import LedgerReader
from ctenrich.ledger.rows import StageTiming
from ctenrich.records import ProductKind
from ctenrich.runner.device_rates import DEFAULT_DEVICE, rates_of_device
from ctenrich.runner.run import Run
from ctenrich.runner.simulation import WorkerPools, simulate
from ctenrich.select.cohort_file import sizes_of
from ctenrich.select.sizes import SeriesSize
from ctenrich.settings import RunSettings
from ctenrich.stages.order import SERIES_STAGES, STAGE_POOLS, product_stages
from ctenrich.workspace import write_bytes

__all__ = [
    "Forecast",
    "Prices",
    "Rates",
    "StageForecast",
    "forecast",
    "forecast_rest",
    "learn_rates",
    "load_rates",
    "products_of",
    "rates_of",
    "save_rates",
    "worker_pools",
]

_POOLS = ("input", "infer", "output")

_REFERENCE: dict[str, float] = {"fetch": 0.002, "sort": 0.002, "convert": 0.006}
"""Seconds per slice of 512 x 512 pixels of the stages of a series, two CPU cores, no GPU.

Estimates, not measurements; they serve for what was measured nowhere. Those of a product come with its kind
(:attr:`ctenrich.inference.kinds.SegmenterKind.seconds_per_slice`).
"""

_BYTES_PER_SLICE = 530_000
"""Of an uncompressed 512 x 512 CT slice, used if the catalog has no sizes."""


_TIMINGS = 20_000
"""Timings from which rates are learned, at most; of a larger run they are spread over all of it."""


@dataclass(frozen=True)
class Rates:
    """Seconds per slice."""

    seconds: Mapping[str, float]
    """``stage`` or ``stage:kind`` or ``stage:product`` -> seconds per slice; the most specific one is used."""
    source: str
    """``this run``, ``this machine`` or ``measured on`` a kind of device."""

    def of(self, stage: str, product: str = "") -> float:
        """Return the rate of a stage: the model's own, otherwise that of its kind.

        Parameters
        ----------
        stage : str
            Name of the stage.
        product : str
            Key of the product, or its beginning; ``""`` for a stage of the series.

        Returns
        -------
        float
            Seconds per slice; 0 for an unknown stage.
        """
        own = self._own(stage, product)
        if own:
            return median(own)
        kind = product.split(":", maxsplit=1)[0]
        for key in (f"{stage}:{kind}", stage):
            if key in self.seconds:
                return self.seconds[key]
        described = find_segmenter_kind(kind) if kind else None
        return (described.seconds_per_slice if described else _REFERENCE).get(stage, 0.0)

    def timed(self, product: str) -> bool:
        """Return whether this model has been timed, in any configuration."""
        return any(self._own(stage, product) for stage in ("segment", "score"))

    def _own(self, stage: str, product: str) -> list[float]:
        """Rates of the product, or of all configurations of its model if only the model is named."""
        key = f"{stage}:{product}" if product else stage
        if key in self.seconds:
            return [self.seconds[key]]
        return [value for name, value in self.seconds.items() if product.count(":") and name.startswith(f"{key}:")]


@dataclass(frozen=True)
class Prices:
    """Prices of a machine."""

    per_hour: float = 0.0
    """Of the whole machine while the run lasts."""
    per_gb_egress: float = 0.0
    """Of a gigabyte that is fetched (IDC's public buckets: nothing)."""


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """Forecast of one stage of one product."""

    stage: str
    product: str
    seconds_per_series: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast of a cohort."""

    series: int
    slices: int
    gigabytes: float
    stages: tuple[StageForecast, ...]
    wall_hours: float
    device_busy: float
    """Share of the wall time in which the devices run inference."""
    device_hours: float
    """Hours of the inference pool: GPU hours if there is a GPU."""
    peak_disk_gigabytes: float
    cost: float
    source: str
    """Origin of the rates."""
    licences: tuple[tuple[str, int], ...]
    """(licence of the data, number of series)."""
    citations: tuple[str, ...]
    """DOIs of the collections."""


def _bytes_of(size: SeriesSize) -> int:
    return size.slices * _BYTES_PER_SLICE if size.bytes is None else size.bytes


def forecast(
    series: Iterable[SeriesSize],
    products: Sequence[tuple[str, str]],
    rates: Rates,
    *,
    prices: Prices | None = None,
    pools: WorkerPools | None = None,
    keep_source: bool = True,
) -> Forecast:
    """Forecast time, disk space and cost.

    Parameters
    ----------
    series : iterable of SeriesSize
        Series that are to be processed (:func:`ctenrich.select.sizes_of`).
    products : sequence of (kind, product key)
        Products of every series.
    rates : Rates
        Seconds per slice.
    prices : Prices, optional
        Of the machine.
    pools : WorkerPools, optional
        Workers of each pool; None: one process runs one job after another.
    keep_source : bool
        Whether fetched files stay until the end.

    Returns
    -------
    Forecast
        Hours, gigabytes (1e9 bytes) and cost in the currency of `prices`.
    """
    prices = prices or Prices()
    sizes = list(series)
    each = [size.slices for size in sizes]
    slices, count = sum(each), max(1, len(each))
    rows = [(stage, "") for stage in SERIES_STAGES]
    rows += [(stage, name) for kind, name in products for stage in product_stages(kind)]
    stages = tuple(
        StageForecast(
            stage=s,
            product=p,
            seconds_per_series=rates.of(s, p) * slices / count,
            hours=rates.of(s, p) * slices / 3600,
        )
        for s, p in rows
    )
    per_slice = {pool: sum(rates.of(s, p) for s, p in rows if STAGE_POOLS[s] == pool) for pool in _POOLS}
    simulation = simulate(
        [(n * per_slice["input"], n * per_slice["infer"], n * per_slice["output"]) for n in each], pools
    )
    wall = simulation.seconds / 3600
    gigabytes = sum(map(_bytes_of, sizes)) / 1e9
    local = all(size.storage == "local" for size in sizes)
    arrays = slices * 512 * 512 * 2 * 2 / 1e9
    largest = max(map(_bytes_of, sizes), default=0) / 1e9
    fetched = 0.0 if local else gigabytes if keep_source else 3 * largest
    cost = wall * prices.per_hour + (0.0 if local else gigabytes * prices.per_gb_egress)
    return Forecast(
        series=len(each),
        slices=slices,
        gigabytes=gigabytes,
        stages=stages,
        wall_hours=wall,
        device_busy=simulation.device_busy,
        device_hours=slices * per_slice["infer"] / 3600,
        peak_disk_gigabytes=fetched + arrays,
        cost=cost,
        source=_source(rates, [name for _, name in products]),
        licences=_count(size.license_short_name or "unknown" for size in sizes),
        citations=tuple(sorted({size.source_doi for size in sizes if size.source_doi})),
    )


def _source(rates: Rates, products: Sequence[str]) -> str:
    """State the origin of the rates, and the models that have none of their own."""
    new = [name for name in products if rates.seconds and not rates.timed(name)]
    return f"{rates.source}; a guess for what was not timed here yet: {', '.join(new)}" if new else rates.source


def forecast_rest(run: Run) -> Forecast | None:
    """Forecast the rest of a run from its own timings; None before the first series has ended."""
    with LedgerReader(run.ledger_path) as ledger:
        ended, runs, timings = ledger.ended_series(), ledger.runs(), ledger.some_timings(_TIMINGS)
    if not ended:
        return None
    slices, rest = {}, []
    for size in sizes_of(run.cohort):
        slices[size.series_instance_uid] = size.slices
        if size.series_instance_uid not in ended:
            rest.append(size)
    rates = learn_rates(timings, slices)
    if not rates.seconds:
        return None
    products = [(p.product.kind, str(p.product)) for p in run.config.products]
    serial = not runs or runs[-1].executor == "serial"
    pools = None if serial else worker_pools(run.config.settings.run)
    return forecast(rest, products, rates, pools=pools)


def rates_of(run: Run) -> Rates:
    """Compute the rates of a run from its ledger; of a large run, from timings that are spread over all of it."""
    with LedgerReader(run.ledger_path) as ledger:
        timings = ledger.some_timings(_TIMINGS)
    return learn_rates(timings, {size.series_instance_uid: size.slices for size in sizes_of(run.cohort)})


def worker_pools(settings: RunSettings) -> WorkerPools:
    """Return the pools of workers that the executors start with these settings."""
    return WorkerPools(settings.input_workers, max(1, len(settings.devices)), settings.output_workers)


def _count(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return tuple(sorted(counts.items()))


def products_of(
    segmenters: Sequence[str], bodypart: str, kept: Sequence[RequestedProduct] = ()
) -> list[tuple[str, str]]:
    """Return (kind, beginning of the product key) of what is requested, without opening a model.

    Parameters
    ----------
    segmenters : sequence of str
        As typed: ``expert`` or ``nnunet:MODEL...``.
    bodypart : str
        Body part model, or ``none``.
    kept : sequence of RequestedProduct
        Products that a run has already: what their models state today about axes does not matter.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a segmenter that cannot be parsed.
    UnknownModelError
        NOT_FOUND for a model that is neither known nor a folder.
    ModelError
        UNKNOWN_AXES for a model on this machine whose axes nothing states.
    """
    named = [split_alias(text)[1] for text in segmenters]
    specs = [(with_kept_product(parse_segmenter(text), text, kept), text) for text in named]
    models = [spec.model for spec, _ in specs if spec.model and segmenter_kind(spec.kind).registered_models]
    for model in (*models, *((bodypart,) if bodypart != "none" else ())):
        check_model_name(model)
    for spec, _ in specs:
        check = segmenter_kind(spec.kind).check
        if check is not None:
            check(spec)
    found = [(spec.kind, f"{spec.kind}:{Path(spec.model).name}".rstrip(":")) for spec, _ in specs]
    if bodypart != "none":
        found.append((ProductKind.BODYPART, f"{ProductKind.BODYPART.value}:{Path(bodypart).name}"))
    return found


def model_terms(segmenters: Sequence[str], bodypart: str) -> list[tuple[str, str, str]]:
    """Return (model, licence, citation) of every model that is requested, from the registry.

    Parameters
    ----------
    segmenters : sequence of str
        As typed: ``expert`` or ``nnunet:MODEL...``.
    bodypart : str
        Body part model, or ``none``.
    """
    names = [name for spec in map(parse_segmenter, segmenters) for name in _registry_models(spec)]
    names += [bodypart] if bodypart != "none" else []
    known = registry()
    entries = [(Path(name).name, known.get(name)) for name in names]
    return [
        (name, entry.licence if entry else "not in the registry: see where it is from", entry.citation if entry else "")
        for name, entry in entries
    ]


def _registry_models(spec: SegmenterSpec) -> tuple[str, ...]:
    listed = segmenter_kind(spec.kind).registry_models
    if listed is not None:
        return listed(spec)
    return (spec.model,) if spec.model else ()


# ---------------------------------------------------------------- learning


def learn_rates(timings: Iterable[StageTiming], slices: Mapping[str, int], source: str = "this run") -> Rates:
    """Compute rates from the timings of a ledger.

    The rate of a stage is its total time over the total slices of all series but the one that was slowest per slice,
    which includes the time to open the models. The rate of a kind is the median of its models, without the
    demonstration models: they are far smaller than real ones.

    Parameters
    ----------
    timings : iterable of StageTiming
        Of one run (:meth:`ctenrich.ledger.reader.LedgerReader.timings`).
    slices : mapping of str to int
        Series Instance UID -> number of slices; series without it are left out.
    source : str
        Origin of the rates, for the forecast.
    """
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for timing in timings:
        count = slices.get(timing.series_instance_uid, 0)
        if count:
            key = f"{timing.stage}:{timing.product}" if timing.product else timing.stage
            found[key].append((timing.seconds, count))
    rates: dict[str, float] = {}
    for key, pairs in found.items():
        ordered = sorted(pairs, key=lambda pair: pair[0] / pair[1])
        kept = ordered[:-1] if len(ordered) > 2 else ordered
        rates[key] = sum(s for s, _ in kept) / sum(n for _, n in kept)
    kinds: dict[str, list[float]] = defaultdict(list)
    for key, rate in rates.items():
        stage, kind, model = (*key.split(":"), "", "")[:3]
        if model and not (model in registry() and registry()[model].demo):
            kinds[f"{stage}:{kind}"].append(rate)
    return Rates({**rates, **{key: median(values) for key, values in kinds.items()}}, source)


def _rates_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ctenrich" / "rates.json"


def _machine() -> str:
    return f"{platform.node()}/{os.cpu_count()}"


def load_rates(device: str = "") -> Rates:
    """Return the rates of this machine, else those that were measured on a kind of device.

    Parameters
    ----------
    device : str
        A kind of device (:func:`ctenrich.runner.device_rates.device_rates`) whose rates are taken whatever this machine
        has; empty: this machine's, and without any those of :data:`DEFAULT_DEVICE`.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a device on which nothing was measured.
    """
    if not device:
        try:
            known = json.loads(_rates_file().read_bytes())[_machine()]
            return Rates({str(k): float(v) for k, v in known.items()}, "this machine")
        except (OSError, ValueError, KeyError, AttributeError):
            device = DEFAULT_DEVICE
    found = rates_of_device(device)
    return Rates(found.seconds, f"measured on {found.device} ({found.source})")


def save_rates(rates: Rates) -> None:
    """Save rates for the next forecast; a folder that cannot be written is not an error."""
    path = _rates_file()
    try:
        known = json.loads(path.read_bytes()) if path.is_file() else {}
        merged = {**known.get(_machine(), {}), **rates.seconds}
        write_bytes(path, json.dumps({**known, _machine(): merged}, indent=1, sort_keys=True).encode())
    except (OSError, ValueError, AttributeError):
        return
