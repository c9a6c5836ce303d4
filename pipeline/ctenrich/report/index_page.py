"""Make the first page of a report: summaries in the page, everything about single series in script files beside it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from ctenrich.masks import has_arrays
from ctenrich.reasons import Reason, current_code
from ctenrich.records import ModelInfo, SegmentMasks, State, Volume
from ctenrich.report.attention import Attention, load_attention, load_scores
from ctenrich.report.charts import Bar, bars
from ctenrich.report.data import CohortData, Group, flow_of, load_features, rows_of
from ctenrich.report.index_data import (
    FLAGS,
    DataFiles,
    SeriesMarks,
    display_unit,
    write_features,
    write_series,
)
from ctenrich.report.outliers import Outlier, OutlierRanking
from ctenrich.report.review_controls import review_bar
from ctenrich.report.systems import MANY, body_system
from ctenrich.report.thumbnails import segment_colour, slice_plane, thumbnail_webp
from ctenrich.review.records import REASONS
from ctenrich.select.consort import consort_svg
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, write_bytes

if TYPE_CHECKING:
    import duckdb

__all__ = ["FEATURE_BYTES", "IndexInputs", "model_rows", "write_index"]

Row = dict[str, Any]

FEATURE_BYTES = 20_000_000
"""Bytes of measured values that the first page can load; quantities beyond them are left to ``ctenrich query``."""
_TRIES = 20
"""Series of a product whose records are read to find its model; an expert has none."""
_LISTED = 50
"""Entries of the ranked lists that are in the page itself."""


@dataclass(frozen=True, kw_only=True)
class IndexInputs:
    """What the first page is made of."""

    workspace: Workspace
    data: CohortData
    models: Sequence[Row]
    reviews: Mapping[tuple[str, str], str]
    """(Series, product) -> state of the review."""
    thumbnails: frozenset[str]
    """Series with a coronal picture."""
    local_viewer: str


def write_index(
    db: duckdb.DuckDBPyConnection, inputs: IndexInputs, environment: Environment, *, demonstration: str, run: str
) -> str:
    """Write the script files of the first page and return its HTML.

    Parameters
    ----------
    db : DuckDBPyConnection
        The tables.
    inputs : IndexInputs
        What the page is made of.
    environment : jinja2.Environment
        The templates.
    demonstration : str
        Names of demonstration models, for the banner.
    run : str
        Identifier of the run for reviews.

    Returns
    -------
    str
    """
    data = inputs.data
    files = DataFiles(inputs.workspace.report / "data")
    ranking = OutlierRanking(data)
    quantities, left_out = _write_quantities(db, data, files, ranking)
    outliers = ranking.ranked()
    scores = load_scores(db)
    attention = load_attention(db, data, _LISTED)
    marks = SeriesMarks(
        scores={uid: found.score for uid, found in scores.items()},
        flags=_flags(db, data, outliers, {uid: found.error for uid, found in scores.items()}),
        thumbnails=inputs.thumbnails,
        reviews=inputs.reviews,
    )
    lists = write_series(files, data, marks)
    known = {r.value: r.sentence for r in Reason}
    files.put(
        "index",
        {
            **lists,
            "products": data.products,
            "quantities": quantities,
            "systems": {o: body_system(o) for q in quantities for o in (part["organ"] for part in q["organs"])},
            "many": MANY,
            "flags": FLAGS,
            "reviewReasons": REASONS,
            "sentences": {code: known.get(current_code(code), "") for code in lists["reasons"] if code},
            "local": inputs.local_viewer.format("{series}"),
            "viewer": _viewer_pattern(data),
            "run": run,
        },
    )
    files.remove_others()
    return environment.get_template("index.html").render(
        data=data,
        demonstration=demonstration,
        root="",
        version=data.runs[-1]["version"] if data.runs else "",
        counts=_counts(data),
        flow=Markup(consort_svg(flow_of(data), standalone=False)),  # noqa: S704 - the drawing escapes its texts
        states=[s.value for s in State],
        outcome_rows=_outcome_rows(data),
        reasons=_reason_rows(data, known),
        attention=[_attention_row(inputs, entry) for entry in attention],
        attention_total=len(scores),
        checked=_is_checked(db),
        outliers=outliers[:_LISTED],
        outliers_total=len(outliers),
        left_out=left_out,
        coverage=_coverage(data),
        timing_rows=_timing_rows(data),
        timing_chart=_timing_chart(data),
        about=_about_rows(data),
        models=inputs.models,
        bar=review_bar(run),
    )  # fmt: skip


# ---------------------------------------------------------------- values


def _write_quantities(
    db: duckdb.DuckDBPyConnection, data: CohortData, files: DataFiles, ranking: OutlierRanking
) -> tuple[list[Row], list[str]]:
    """Write the values of all quantities, and return those that are written and the names of those left out."""
    out: list[Row] = []
    left: list[str] = []
    total = len(data.series)

    def write(groups: Sequence[Group]) -> None:
        first = groups[0]
        organs = write_features(files, len(out), groups, total)
        out.append({"name": first.quantity, "unit": display_unit(first.unit)[0], "organs": organs})

    for groups in (data.lung, data.regions):
        if groups:
            write(groups)
    used = 0
    for quantity in data.quantities:
        groups = load_features(db, quantity)
        if not groups:
            continue
        ranking.add(groups)
        expected = 5.4 * sum(min(total, 2 * group.values.size) for group in groups)
        if used + expected > FEATURE_BYTES:
            left.append(str(quantity["quantity"]))
            continue
        before = files.size
        write(groups)
        used += files.size - before
    measured = [q for q in out if q["name"] not in ("Lung height", "Share of slices")]
    return [*measured, *(q for q in out if q not in measured)], left


def _flags(
    db: duckdb.DuckDBPyConnection, data: CohortData, outliers: Sequence[Outlier], errors: Mapping[str, bool]
) -> dict[str, int]:
    """Bits of :data:`FLAGS` of every series that has one."""
    flags: dict[str, int] = defaultdict(int)
    for uid, error in errors.items():
        flags[uid] |= 3 if error else 2
    for outlier in outliers:
        flags[outlier.series] |= 4
    for row in data.absent:
        flags[row["series"]] |= 8
    query = "SELECT DISTINCT SeriesInstanceUID AS series FROM issues WHERE severity = 'error'"
    for row in rows_of(db, query):
        flags[row["series"]] |= 16
    return dict(flags)


def _viewer_pattern(data: CohortData) -> str:
    """Address in IDC's viewer with {study} and {series}; empty where no series is of IDC."""
    place = next((n for n, address in enumerate(data.series.column("viewer_url")) if address), None)
    if place is None:
        return ""
    row = data.series[place]
    pattern = str(row["viewer_url"]).replace(row["SeriesInstanceUID"], "{series}")
    return pattern.replace(row["StudyInstanceUID"] or "", "{study}") if row["StudyInstanceUID"] else pattern


# ---------------------------------------------------------------- what needs a look first


def _is_checked(db: duckdb.DuckDBPyConnection) -> bool:
    """Whether ``ctenrich quality`` has been run."""
    return bool(rows_of(db, "SELECT count(*) AS n FROM quality_ranking")[0]["n"])


def _attention_row(inputs: IndexInputs, entry: Attention) -> Row:
    row = inputs.data.series[inputs.data.places[entry.series]]
    key = entry.series, entry.product
    return {
        "entry": entry,
        "patient": row["PatientID"] or "",
        "picture": _finding_picture(inputs.workspace, entry) or _thumbnail(inputs, entry.series),
        "version": dict(zip(row["products"], row["versions"], strict=True)).get(entry.product, ""),
        "state": inputs.reviews.get(key, ""),
    }


def _thumbnail(inputs: IndexInputs, series: str) -> str:
    return f"thumbnails/{series}.webp" if series in inputs.thumbnails else ""


def _finding_picture(workspace: Workspace, entry: Attention) -> str:
    """Draw the slice of the gravest finding with the product's masks; empty without a slice or its volume."""
    index, store = entry.slice_index, SeriesStore(workspace)
    volume = store.find_valid(Volume, entry.series) if index is not None else None
    product = next((p for p in store.products(entry.series) if str(p) == entry.product), None)
    masks = store.find_valid(SegmentMasks, entry.series, product) if product is not None else None
    if index is None or volume is None or masks is None or not has_arrays(masks, workspace):
        return ""
    if not workspace.resolve(entry.series, volume.array_path).is_file():
        return ""
    key = "|".join((volume.sha256, masks.sha256, str(index)))
    name = f"thumbnails/finding-{hashlib.sha256(key.encode()).hexdigest()[:20]}.webp"
    path = workspace.report / name
    if not path.is_file():
        try:
            plane = slice_plane(volume, index)
        except ValueError:
            plane = None
        if plane is None:
            return ""
        colours = {s.name: segment_colour(s.name) for s in masks.segments}
        write_bytes(path, thumbnail_webp(volume, [masks], plane, colours, workspace))
    return name


# ---------------------------------------------------------------- summaries


def _counts(data: CohortData) -> Row:
    states = Counter(data.series.column("state"))
    return {
        "series": len(data.series),
        "done": states[State.DONE.value],
        "failed": states[State.FAILED.value],
        "objects": data.objects,
        "measurements": data.measurements,
        "errors": data.series_issues,
    }


def _outcome_rows(data: CohortData) -> list[Row]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in data.outcomes:
        found[row["product"]][row["state"]] += row["n"]
    return [{"product": p, "counts": [c[s.value] for s in State]} for p, c in sorted(found.items())]


def _reason_rows(data: CohortData, known: Mapping[str, str]) -> list[Row]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in data.outcomes:
        if row["reason"]:
            counts[current_code(row["reason"]), row["state"]] += row["n"]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": r, "state": s, "n": n, "sentence": known.get(r, "")} for (r, s), n in ordered]


def _coverage(data: CohortData) -> Markup:
    """Chart of the number of series in which each landmark was found, head first."""
    rows = [Bar(row["landmark"], float(row["n"]), f"{row['n']} of {data.scored}") for row in data.landmarks]
    return bars(rows, "Series in which each landmark was found, head first")


def _timing_rows(data: CohortData) -> list[Row]:
    return [
        {
            "stage": row["stage"],
            "product": row["product"],
            "n": row["n"],
            "median": f"{row['median']:.2f}",
            "largest": f"{row['largest']:.2f}",
            "total": f"{row['total']:.1f}",
            "memory": f"{row['memory'] / 1e6:,.0f}" if row["memory"] else "",
        }
        for row in data.timings
    ]


def _timing_chart(data: CohortData) -> Markup:
    totals: dict[str, float] = defaultdict(float)
    for row in data.timings:
        totals[row["stage"]] += row["total"]
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return bars([Bar(name, value, f"{value:,.1f} s") for name, value in ordered], "Seconds per stage, all series")


def _about_rows(data: CohortData) -> list[tuple[str, str]]:
    facts = [("Run", data.name)]
    facts += [("Command", f"{r['command']} (ctenrich {r['version']}, {r['executor']})") for r in data.runs]
    for key, value in sorted(data.lock.items()):
        if isinstance(value, (str, int, float)) and len(str(value)) < 200:
            facts.append((f"Selection: {key.replace('_', ' ')}", str(value)))
    licences = Counter(name for name in data.series.column("license_short_name") if name)
    facts += [("Licence of source images", f"{name}: {n} series") for name, n in licences.most_common()]
    return facts


def model_rows(workspace: Workspace, data: CohortData) -> list[Row]:
    """Facts about the model of each product, as stated by the first series that has the product.

    Parameters
    ----------
    workspace : Workspace
        The run.
    data : CohortData
        Its cohort.

    Returns
    -------
    list of dict
    """
    store = SeriesStore(workspace)
    found: dict[str, Row] = {}
    tries = dict.fromkeys(data.products, _TRIES)
    waiting = set(data.products)
    for row in data.series:
        for product in waiting.intersection(row["products"]):
            tries[product] -= 1
            if not tries[product]:
                waiting.discard(product)
            info = _model_info(store, row["SeriesInstanceUID"], product)
            if info is not None:
                waiting.discard(product)
                found[product] = {
                    "product": product, "name": info.name, "version": info.version, "licence": info.licence,
                    "sha256": info.sha256, "demo": info.demo,
                }  # fmt: skip
        if not waiting:
            break
    return [found[name] for name in sorted(found)]


def _model_info(store: SeriesStore, uid: str, key: str) -> ModelInfo | None:
    product = next((product for product in store.products(uid) if str(product) == key), None)
    return store.model(uid, product) if product is not None else None
