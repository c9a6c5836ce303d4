"""Write the report of a run: a folder of plain HTML files that works from disk, offline."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason, current_code
from ctenrich.records import ModelInfo, State
from ctenrich.report.charts import Bar, bars
from ctenrich.report.data import Group, RunData, flow_of, load_run
from ctenrich.report.outliers import box, rank
from ctenrich.report.series_page import Pictures, SeriesIndex, page_of
from ctenrich.report.systems import MANY, body_system
from ctenrich.select.consort import consort_svg
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["LOCAL_VIEWER", "SINGLE_UP_TO", "build_report"]

SINGLE_UP_TO = 50
"""Runs of at most this many series become one single file."""
LOCAL_VIEWER = "http://127.0.0.1:8790/open/{}"
"""Where `ctenrich view` shows a local series."""

Row = dict[str, Any]
_TEMPLATES = Path(__file__).parent / "templates"


def build_report(workspace: Workspace, *, progress: Progress = SILENT) -> Path:
    """Write ``report/`` from the run's tables.

    Up to 50 series make a single file; more make ``index.html`` and one page per series. Pictures and pages that have
    not changed since the last report are kept.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.
    progress : Progress
        Advanced by every series.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    UsageError
        NOT_PREPARED if the run has no tables yet.
    """
    data = load_run(workspace)
    single = len(data.series) <= SINGLE_UP_TO
    index = SeriesIndex(data)
    demonstration = ", ".join(SeriesStore(workspace).demonstration_models())
    pictures = Pictures(workspace.report / "pictures", "" if single else "../pictures/", workspace)
    progress.start("report", len(data.series))
    pages: list[Row] = []
    for row in data.series:
        page = page_of(row, index, pictures, viewer_of(row))
        if single:
            pages.append(page)
        else:
            text = _environment().get_template("one.html").render(s=page, demonstration=demonstration)
            _write_changed(workspace.report / "series" / f"{row['SeriesInstanceUID']}.html", text)
        progress.advance("report")
    target = workspace.report / "index.html"
    _write_changed(target, _index_page(workspace, data, pages, demonstration))
    progress.finish("report")
    return target


def viewer_of(row: Row) -> str:
    """Address of a series in a viewer: IDC's for a series of IDC, ours for a local one."""
    return str(row["viewer_url"] or LOCAL_VIEWER.format(row["SeriesInstanceUID"]))


def _write_changed(path: Path, text: str) -> None:
    content = text.encode("utf-8")
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


@cache
def _environment() -> Environment:
    scripts = {name: (_TEMPLATES / f"{name}.js").read_text("utf-8") for name in ("report", "series")}
    styles = "".join((_TEMPLATES / f"{name}.css").read_text("utf-8") for name in ("report", "series"))
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.globals["css"] = Markup(styles)  # noqa: S704 - our own files
    environment.globals["scripts"] = [Markup(script) for script in scripts.values()]  # noqa: S704 - our own files
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts.values()]
    environment.globals["script_hashes"] = Markup(" ".join(f"'sha256-{one}'" for one in hashes))  # noqa: S704 - base64
    return environment


def _index_page(workspace: Workspace, data: RunData, pages: list[Row], demonstration: str) -> str:
    single = len(data.series) <= SINGLE_UP_TO
    pattern = "#s-{}" if single else "series/{}.html"
    quantities = sorted({g.quantity for g in data.features})
    first = next((q for q in quantities if "sphericity" in q.lower()), quantities[0] if quantities else "")
    return _environment().get_template("index.html").render(
        data=data,
        demonstration=demonstration,
        single=single,
        pages=pages,
        products=data.products,
        version=data.runs[-1]["version"] if data.runs else "",
        counts=_counts(data),
        flow=Markup(consort_svg(flow_of(data), standalone=False)),  # noqa: S704 - the drawing escapes its texts
        states=[s.value for s in State],
        outcome_rows=_outcome_rows(data),
        reasons=_reason_rows(data),
        listing=_listing(data),
        page_url=pattern.format,
        first_quantity=first,
        summaries={
            "features": _summaries([g for g in data.features if g.quantity == first]),
            "lung": _summaries(data.lung),
            "regions": _summaries(data.regions),
        },
        coverage=_coverage(data),
        outliers=rank(data),
        viewers={row["SeriesInstanceUID"]: viewer_of(row) for row in data.series},
        timing_rows=_timing_rows(data),
        timing_chart=_timing_chart(data),
        issue_rows=_issue_summary_rows(data),
        about=_about_rows(data),
        models=_model_rows(workspace, data),
        points=_chart_data(data, pattern),
    )  # fmt: skip


def _chart_data(data: RunData, pattern: str) -> Markup:
    """Return the values of all charts as JSON that cannot end its script element."""
    names = [row["SeriesInstanceUID"] for row in data.series]
    index = {name: number for number, name in enumerate(names)}

    def group(one: Group) -> Row:
        return {
            "q": one.quantity,
            "u": one.unit,
            "o": one.organ,
            "p": one.product,
            "s": [index[p.series] for p in one.points],
            "v": [float(f"{p.value:.6g}") for p in one.points],
        }

    sets = {"features": data.features, "lung": data.lung, "regions": data.regions}
    found: Row = {name: [group(g) for g in groups] for name, groups in sets.items()}
    found |= {"series": names, "page": pattern, "viewer": [row["viewer_url"] or "" for row in data.series]}
    found["local"] = LOCAL_VIEWER
    found |= {"systems": {g.organ: body_system(g.organ) for g in data.features}, "many": MANY}
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # noqa: S704 - no character of markup is left


def _counts(data: RunData) -> Row:
    states = Counter(data.state(s["SeriesInstanceUID"]) for s in data.series)
    return {
        "series": len(data.series),
        "done": states[State.DONE.value],
        "failed": states[State.FAILED.value],
        "objects": len(data.objects),
        "measurements": sum(len(rows) for rows in data.measurements.values()),
        "errors": sum(1 for i in data.issues if i["severity"] == "error"),
    }


def _outcome_rows(data: RunData) -> list[Row]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in data.outcomes:
        found[row["product"]][row["state"]] += 1
    return [{"product": p, "counts": [c[s.value] for s in State]} for p, c in sorted(found.items())]


def _reason_rows(data: RunData) -> list[Row]:
    known = {r.value: r.sentence for r in Reason}
    counts = Counter((current_code(r["reason"]), r["state"]) for r in data.outcomes if r["reason"])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": r, "state": s, "n": n, "sentence": known.get(r, "")} for (r, s), n in ordered]


def _listing(data: RunData) -> list[Row]:
    objects = Counter(o["SeriesInstanceUID"] for o in data.objects)
    seconds: dict[str, float] = defaultdict(float)
    for row in data.timings:
        seconds[row["SeriesInstanceUID"]] += row["seconds"]
    reasons = {o["SeriesInstanceUID"]: o["reason"] for o in data.outcomes if not o["product"]}
    return [
        {
            "uid": (uid := row["SeriesInstanceUID"]),
            "collection": row["collection_id"] or "",
            "slices": row["slices"] or "",
            "spacing": f"{row['slice_spacing']:.3g}" if row["slice_spacing"] else "",
            "state": data.state(uid),
            "reason": reasons.get(uid) or "",
            "objects": objects[uid],
            "seconds": f"{seconds[uid]:.1f}" if uid in seconds else "",
            "viewer": viewer_of(row),
        }
        for row in data.series
    ]


def _summaries(groups: list[Group]) -> list[Row]:
    out = []
    for group in groups:
        found = box([p.value for p in group.points])
        numbers = [f"{found[name]:.4g}" for name in ("min", "q1", "median", "q3", "max")]
        out.append({"organ": group.organ, "product": group.product, "n": len(group.points), "numbers": numbers})
    return out


def _coverage(data: RunData) -> Markup:
    """Chart of the number of series in which each landmark was found, head first."""
    scored = {(r["product"], r["SeriesInstanceUID"]) for r in data.landmarks}
    present = Counter(r["landmark"] for r in data.landmarks if r["slice_index"] is not None)
    order = dict.fromkeys(r["landmark"] for r in sorted(data.landmarks, key=lambda r: -r["score"]))
    rows = [Bar(name, float(present[name]), f"{present[name]} of {len(scored)}") for name in order]
    return bars(rows, "Series in which each landmark was found, head first")


def _timing_rows(data: RunData) -> list[Row]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in data.timings:
        groups[row["stage"], row["product"]].append(row)
    out = []
    for (stage, product), rows in groups.items():
        seconds = [r["seconds"] for r in rows]
        memory = max(r["peak_memory"] for r in rows)
        out.append(
            {
                "stage": stage,
                "product": product,
                "n": len(rows),
                "median": f"{float(np.median(seconds)):.2f}",
                "largest": f"{max(seconds):.2f}",
                "total": f"{sum(seconds):.1f}",
                "memory": f"{memory / 1e6:,.0f}" if memory else "",
                "sum": sum(seconds),
            }
        )
    return sorted(out, key=lambda row: -row["sum"])


def _timing_chart(data: RunData) -> Markup:
    totals: dict[str, float] = defaultdict(float)
    for row in data.timings:
        totals[row["stage"]] += row["seconds"]
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return bars([Bar(name, value, f"{value:,.1f} s") for name, value in ordered], "Seconds per stage, all series")


def _issue_summary_rows(data: RunData) -> list[Row]:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in data.issues:
        groups[row["severity"], row["rule"], row["checker"]].append(row)
    order = {"error": 0, "warning": 1, "note": 2}
    out = [
        {"severity": s, "rule": r, "checker": c, "n": len(rows), "message": rows[0]["message"]}
        for (s, r, c), rows in groups.items()
    ]
    return sorted(out, key=lambda row: (order.get(row["severity"], 3), -row["n"], row["rule"]))


def _about_rows(data: RunData) -> list[tuple[str, str]]:
    facts = [("Run", data.name)]
    facts += [("Command", f"{r['command']} (ctenrich {r['version']}, {r['executor']})") for r in data.runs]
    for key, value in sorted(data.lock.items()):
        if isinstance(value, (str, int, float)) and len(str(value)) < 200:
            facts.append((f"Selection: {key.replace('_', ' ')}", str(value)))
    licences = Counter(s["license_short_name"] for s in data.series if s["license_short_name"])
    facts += [("Licence of source images", f"{name}: {n} series") for name, n in licences.most_common()]
    return facts


def _model_rows(workspace: Workspace, data: RunData) -> list[Row]:
    """Facts about the model of each product, as stated by the first series that has the product."""
    found: dict[str, Row] = {}
    for row in data.objects:
        product = row["product"]
        if product in found:
            continue
        info = _model_info(SeriesStore(workspace), row["SeriesInstanceUID"], product)
        if info is not None:
            found[product] = {
                "product": product, "name": info.name, "version": info.version, "licence": info.licence,
                "sha256": info.sha256, "demo": info.demo,
            }  # fmt: skip
    return [found[name] for name in sorted(found)]


def _model_info(store: SeriesStore, uid: str, key: str) -> ModelInfo | None:
    product = next((product for product in store.products(uid) if str(product) == key), None)
    return store.model(uid, product) if product is not None else None
