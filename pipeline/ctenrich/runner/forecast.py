"""The forecast: what a cohort will take in time, disk and money, before any of it is spent.

The time of a stage is taken as proportional to the number of slices. The rates are this machine's own where it has
worked before (they are learned at the end of every run and kept in the user's cache folder), else the package's
reference figures, and the forecast says which. A run that has begun forecasts its rest from its own ledger.
"""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ctenrich.inference.kinds import find_segmenter_kind
from ctenrich.inference.products import parse_segmenter
from ctenrich.inference.registry import registry
from ctenrich.records import Cohort, ProductKind, SeriesEntry
from ctenrich.runner.ledger import Ledger
from ctenrich.runner.run import Run
from ctenrich.runner.simulation import WorkerPools, simulate
from ctenrich.settings import RunSettings
from ctenrich.stages.table import SERIES_STAGES, STAGES, product_stages
from ctenrich.workspace import write_bytes

__all__ = [
    "Forecast",
    "Prices",
    "Rates",
    "StageForecast",
    "forecast",
    "forecast_rest",
    "lanes_of",
    "learn_rates",
    "load_rates",
    "products_of",
    "save_rates",
]

_LANES = ("input", "infer", "output")

_REFERENCE: dict[str, float] = {"fetch": 0.002, "sort": 0.002, "convert": 0.006}
"""Seconds per slice of 512 x 512 pixels of the stages of a series, two CPU cores, no GPU.

Estimates, not measurements; they serve until a machine has its own. Those of a product come with its kind
(:attr:`ctenrich.inference.kinds.SegmenterKind.seconds_per_slice`).
"""

_BYTES_PER_SLICE = 530_000
"""Of an uncompressed 512 x 512 CT slice, where the catalog has no sizes."""


@dataclass(frozen=True)
class Rates:
    """Seconds per slice."""

    seconds: Mapping[str, float]
    """``stage`` or ``stage:kind`` or ``stage:product`` -> seconds per slice; the most particular one counts."""
    source: str
    """``this run``, ``this machine`` or ``reference figures``."""

    def of(self, stage: str, product: str = "") -> float:
        """Rate of a stage of a product (``""``: of the series): the model's own, else that of its kind."""
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
        """Whether this very model has been timed, in any configuration."""
        return any(self._own(stage, product) for stage in ("segment", "score"))

    def _own(self, stage: str, product: str) -> list[float]:
        """Rates of the product, or of all configurations of its model where only the model is named."""
        key = f"{stage}:{product}" if product else stage
        if key in self.seconds:
            return [self.seconds[key]]
        return [value for name, value in self.seconds.items() if product.count(":") and name.startswith(f"{key}:")]


@dataclass(frozen=True)
class Prices:
    """What a machine costs."""

    per_hour: float = 0.0
    """Of the whole machine while the run lasts."""
    per_gb_egress: float = 0.0
    """Of bytes fetched (IDC's public buckets: nothing)."""


@dataclass(frozen=True)
class StageForecast:
    """One stage of one product."""

    stage: str
    product: str
    seconds_per_series: float
    hours: float


@dataclass(frozen=True)
class Forecast:
    """What a cohort will take."""

    series: int
    slices: int
    gigabytes: float
    stages: tuple[StageForecast, ...]
    wall_hours: float
    device_busy: float
    """Share of that time in which the devices infer."""
    device_hours: float
    """Hours of the inferring pool: GPU hours where there is a GPU."""
    peak_disk_gigabytes: float
    cost: float
    source: str
    """Where the rates come from."""
    licences: tuple[tuple[str, int], ...]
    """(licence of the data, number of series)."""
    citations: tuple[str, ...]
    """DOIs of the collections."""


def slices_of(entry: SeriesEntry) -> int:
    """Number of slices, as far as the catalog knows."""
    return entry.expected_instances or len(entry.instances)


def _bytes_of(entry: SeriesEntry) -> int:
    known = [i.size for i in entry.instances if i.size]
    return sum(known) if known else slices_of(entry) * _BYTES_PER_SLICE


def forecast(
    cohort: Cohort,
    products: Sequence[tuple[str, str]],
    rates: Rates,
    *,
    prices: Prices | None = None,
    pools: WorkerPools | None = None,
    keep_source: bool = True,
) -> Forecast:
    """Forecast time, disk and cost.

    Parameters
    ----------
    cohort : Cohort
        What is left to do.
    products : sequence of (kind, product key)
        What is made of every series.
    rates : Rates
        Seconds per slice.
    prices : Prices, optional
        Of the machine.
    pools : WorkerPools, optional
        Workers of each pool; None: one process does one thing after another.
    keep_source : bool
        Whether fetched files stay until the end.
    """
    prices = prices or Prices()
    each = [slices_of(e) for e in cohort.series]
    slices, count = sum(each), max(1, len(each))
    rows = [(stage, "") for stage in SERIES_STAGES]
    rows += [(stage, name) for kind, name in products for stage in product_stages(kind)]
    stages = tuple(
        StageForecast(s, p, rates.of(s, p) * slices / count, rates.of(s, p) * slices / 3600) for s, p in rows
    )
    per_slice = {pool: sum(rates.of(s, p) for s, p in rows if STAGES[s].pool == pool) for pool in _LANES}
    passage = simulate([(n * per_slice["input"], n * per_slice["infer"], n * per_slice["output"]) for n in each], pools)
    wall = passage.seconds / 3600
    gigabytes = sum(_bytes_of(e) for e in cohort.series) / 1e9
    local = all(i.url.startswith("file:") for e in cohort.series for i in e.instances)
    arrays = slices * 512 * 512 * 2 * 2 / 1e9
    largest = max((_bytes_of(e) for e in cohort.series), default=0) / 1e9
    fetched = 0.0 if local else gigabytes if keep_source else 3 * largest
    cost = wall * prices.per_hour + (0.0 if local else gigabytes * prices.per_gb_egress)
    return Forecast(
        len(each), slices, gigabytes, stages, wall, passage.device_busy, slices * per_slice["infer"] / 3600,
        fetched + arrays, cost, _source(rates, [name for _, name in products]),
        _count(e.license_short_name or "unknown" for e in cohort.series),
        tuple(sorted({e.source_doi for e in cohort.series if e.source_doi})),
    )  # fmt: skip


def _source(rates: Rates, products: Sequence[str]) -> str:
    """Where the rates come from, and for which models they are only those of others."""
    new = [name for name in products if rates.seconds and not rates.timed(name)]
    return f"{rates.source}; a guess for what was not timed here yet: {', '.join(new)}" if new else rates.source


def forecast_rest(run: Run) -> Forecast | None:
    """Forecast what a run has still to do, from what it has done; None before the first series has ended."""
    with Ledger(run.ledger_path, read_only=True) as ledger:
        outcomes, timings, runs = ledger.outcomes(), ledger.timings(), ledger.runs()
    ended = {o.series_instance_uid for o in outcomes if not o.product}
    rates = learn_rates(timings, {e.series_instance_uid: slices_of(e) for e in run.cohort.series})
    if not ended or not rates.seconds:
        return None
    rest = tuple(e for e in run.cohort.series if e.series_instance_uid not in ended)
    products = [(p.product.kind, str(p.product)) for p in run.config.products if p.missing is None]
    serial = not runs or runs[-1][4] == "serial"
    pools = None if serial else lanes_of(run.config.settings.run)
    return forecast(replace(run.cohort, series=rest), products, rates, pools=pools)


def lanes_of(settings: RunSettings) -> WorkerPools:
    """The pools that the executors open for these settings."""
    return WorkerPools(settings.input_workers, max(1, len(settings.devices)), settings.output_workers)


def _count(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return tuple(sorted(counts.items()))


def products_of(segmenters: Sequence[str], bodypart: str) -> list[tuple[str, str]]:
    """(kind, key) of what is asked for, without opening a model."""
    specs = [(parse_segmenter(text), text) for text in segmenters]
    found = [(spec.kind, f"{spec.kind}:{Path(spec.model).name}".rstrip(":")) for spec, _ in specs]
    if bodypart != "none":
        found.append((ProductKind.BODYPART, f"{ProductKind.BODYPART.value}:{Path(bodypart).name}"))
    return found


def model_terms(segmenters: Sequence[str], bodypart: str) -> list[tuple[str, str, str]]:
    """(model, licence, what to cite) of every model that is asked for, as the registry knows them."""
    names = [spec.model for spec in map(parse_segmenter, segmenters) if spec.model]
    names += [bodypart] if bodypart != "none" else []
    known = registry()
    entries = [(Path(name).name, known.get(name)) for name in names]
    return [
        (name, entry.licence if entry else "not in the registry: see where it is from", entry.citation if entry else "")
        for name, entry in entries
    ]


# ---------------------------------------------------------------- learning


def learn_rates(timings: Iterable[Sequence[object]], slices: Mapping[str, int], source: str = "this run") -> Rates:
    """Rates from a ledger's timings (:meth:`ctenrich.runner.ledger.Ledger.timings`).

    The rate of a stage is its total time over the total slices of all series but the one that was slowest per slice,
    which paid for opening the models. The rate of a kind is the median of its models, without the demonstration models:
    they are far smaller than real ones.
    """
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for uid, product, stage, _, seconds, *_rest in timings:
        count = slices.get(str(uid), 0)
        if count:
            found[f"{stage}:{product}" if product else str(stage)].append((float(str(seconds)), count))
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


def load_rates() -> Rates:
    """Rates of this machine, or the package's reference figures."""
    try:
        known = json.loads(_rates_file().read_bytes())[_machine()]
        return Rates({str(k): float(v) for k, v in known.items()}, "this machine")
    except (OSError, ValueError, KeyError, AttributeError):
        return Rates({}, "reference figures")


def save_rates(rates: Rates) -> None:
    """Keep what was learned, for the next forecast; a folder that cannot be written is no error."""
    path = _rates_file()
    try:
        known = json.loads(path.read_bytes()) if path.is_file() else {}
        merged = {**known.get(_machine(), {}), **rates.seconds}
        write_bytes(path, json.dumps({**known, _machine(): merged}, indent=1, sort_keys=True).encode())
    except (OSError, ValueError, AttributeError):
        return
