"""The status page of a station, its JSON, and their OpenAPI description."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from ctenrich import __version__
from ctenrich.listener.cases import CaseRow, CaseState, Totals

__all__ = ["case_json", "openapi", "status_page"]

_STYLE = Markup(
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1b2430;"
    "background:#fff}table{border-collapse:collapse;width:100%}caption{text-align:left;font-weight:600;padding:6px 0}"
    "td,th{text-align:left;padding:6px 10px;vertical-align:top;border-bottom:1px solid #dde3ea}"
    "td.t{white-space:nowrap}a{color:#0b5cad}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ":focus-visible{outline:3px solid currentColor;outline-offset:2px}"
    "dl{display:flex;gap:2rem;flex-wrap:wrap;padding:0}"
    "dt{color:#4a5565}dd{margin:0;font-size:1.6rem}"
    "@media (max-width:700px){table,caption,tbody,tr,td,tbody th{display:block}dl{gap:0 1rem}"  # a block per case
    "thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}"
    "tbody tr{border-bottom:1px solid #dde3ea;padding:8px 0}td,th,td.n,th.n{border:0;padding:1px 0;text-align:left}"
    "td:empty{display:none}td::before,tbody th::before{content:attr(data-label) ' ';font-weight:400;color:#4a5565;"
    "display:inline-block;min-width:6em}}"
    "@media (prefers-color-scheme:dark){body{background:#12161c;color:#e6eaf0}td,th,tbody tr{border-color:#39424e}"
    "dt,td::before,tbody th::before{color:#a9b4c2}a{color:#8ec5ff}}"
)
_MARKS = {
    CaseState.OPEN: "\N{WHITE CIRCLE}",
    CaseState.WAITING: "\N{WHITE CIRCLE}",
    CaseState.CLOSED: "\N{CIRCLE WITH LEFT HALF BLACK}",
    CaseState.RUNNING: "\N{BLACK RIGHT-POINTING TRIANGLE}",
    CaseState.DONE: "\N{CHECK MARK}",
    CaseState.SKIPPED: "\N{EN DASH}",
    CaseState.FAILED: "\N{MULTIPLICATION SIGN}",
}
_PAGE = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "{refresh}<title>Station {aet}</title><style>{style}</style></head><body>"
    "<main><h1>Station {aet}</h1><p>{disk}. {again}</p>"
    '<dl>{totals}</dl>{held}<table role="table"><caption>Cases, newest first</caption>'
    '<thead role="rowgroup"><tr role="row">{heads}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    "<p>ctenrich {version}, research software, not a medical device. The same as JSON: <a href=/cases>/cases</a>, "
    "described in <a href=/openapi.json>/openapi.json</a>; <a href=/metrics>/metrics</a> for Prometheus.</p>"
    "</main></body></html>"
)
_REFRESH = Markup('<meta http-equiv="refresh" content="10">')
_FOLLOWING = Markup('This page is loaded again every 10 seconds: <a href="/">stop that</a>.')
_FOLLOW = Markup('<a href="/?follow">Load this page again every 10 seconds</a>.')
_COLUMNS = ("Case", "Revision", "State", "Images", "Series", "Opened", "Priority", "Reason")
_NUMBERS = frozenset({"Case", "Revision", "Images", "Series", "Priority"})
_HEAD = Markup('<th role="columnheader" scope="col"{kind}>{name}</th>')
_FIRST_CELL = Markup('<th role="rowheader" scope="row" data-label="{name}"{kind}>{text}</th>')
_CELL = Markup('<td role="cell" data-label="{name}"{kind}>{text}</td>')


def case_json(row: CaseRow) -> dict[str, Any]:
    """Return a revision as JSON: times are seconds since 1970."""
    return {**asdict(row), "state": row.state.value}


def status_page(
    aet: str, rows: Sequence[CaseRow], totals: Totals, *, disk: tuple[int, int], follow: bool = False
) -> str:
    """Return the status page.

    Parameters
    ----------
    aet : str
        AE title of the station.
    rows : sequence of CaseRow
        Revisions, newest first.
    totals : Totals
        Their numbers.
    disk : (int, int)
        Free bytes of the disk, and those below which objects are refused.
    follow : bool
        Whether the page is loaded again and again.

    Returns
    -------
    str
        HTML without scripts.
    """
    names = ("planned", "done", "skipped", "failed", "open", "held")
    free, reserve = disk
    space = f"{free / 1e9:.1f} GB free; objects are refused below {reserve / 1e9:.1f} GB"
    if free < reserve:
        space = f"The disk is full: {space}, and are refused now"
    hint = Markup("<p>Held cases wait for a person: <code>ctenrich cases STATION --state held</code>.</p>")
    return str(
        _PAGE.format(
            aet=aet,
            style=_STYLE,
            disk=space,
            refresh=_REFRESH if follow else "",
            again=_FOLLOWING if follow else _FOLLOW,
            held=hint if totals.held else "",
            totals=Markup("").join(
                Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(n, getattr(totals, n)) for n in names
            ),
            heads=Markup("").join(_HEAD.format(kind=_kind(name), name=name) for name in _COLUMNS),
            rows=Markup("").join(map(_table_row, rows)),
            version=__version__,
        )
    )


def _kind(name: str) -> Markup:
    """Class of the cells of a column."""
    kind = "n" if name in _NUMBERS else "t" if name == "Opened" else ""
    return Markup(' class="{}"').format(kind) if kind else Markup("")


def _table_row(row: CaseRow) -> Markup:
    held = f", held: {row.held}" if row.held else ""
    values = (
        row.case,
        row.revision,
        f"{_MARKS[row.state]} {row.state.value}{held}",
        row.images,
        row.series,
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.created)),
        row.priority,
        ": ".join(filter(None, (row.reason, row.message))),
    )
    cells = [
        (_CELL if name != _COLUMNS[0] else _FIRST_CELL).format(name=name, kind=_kind(name), text=text)
        for name, text in zip(_COLUMNS, values, strict=True)
    ]
    return Markup('<tr role="row">{}</tr>').format(Markup("").join(cells))


def openapi() -> dict[str, Any]:
    """Return the OpenAPI description of the read-only interface and of STOW-RS."""
    number, text = {"type": "integer"}, {"type": "string"}
    time_value = {"type": "number", "nullable": True, "description": "Seconds since 1970"}
    fields: dict[str, Any] = {
        "case": number, "revision": number, "held": text, "reason": text, "message": text, "priority": number,
        "images": number, "series": number, "conflicts": number,
        "state": {"type": "string", "enum": [state.value for state in CaseState]},
        "created": {"type": "number"}, "closed": time_value, "started": time_value, "ended": time_value,
    }  # fmt: skip
    case = {"type": "object", "properties": fields}
    totals = dict.fromkeys(("planned", "done", "skipped", "failed", "open", "held"), number)

    def answer(schema: dict[str, Any]) -> dict[str, Any]:
        return {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}

    listed = {"type": "object", "properties": {
        "totals": {"type": "object", "properties": totals}, "cases": {"type": "array", "items": case},
    }}  # fmt: skip
    number_in_path = {"name": "case", "in": "path", "required": True, "schema": number}
    return {
        "openapi": "3.0.3",
        "info": {"title": "Station of ctenrich", "version": __version__},
        "paths": {
            "/healthz": {"get": {"summary": "200 if objects are accepted, 503 if the disk is full", "responses": {
                "200": {"description": "OK"}, "503": {"description": "The reserve of the disk is reached"},
            }}},
            "/metrics": {"get": {"summary": "Metrics for Prometheus", "responses": {"200": {"description": "OK"}}}},
            "/cases": {"get": {"summary": "The newest revisions of cases, and totals", "responses": answer(listed)}},
            "/cases/{case}": {"get": {
                "summary": "All revisions of a case", "parameters": [number_in_path],
                "responses": {**answer({"type": "array", "items": case}), "404": {"description": "No such case"}},
            }},
            "/dicom-web/studies": {"post": {
                "summary": "STOW-RS (PS3.18 10.5): multipart/related of application/dicom, with a bearer token",
                "responses": {
                    "200": {"description": "All objects are stored"}, "202": {"description": "Some are stored"},
                    "401": {"description": "No token, or a wrong one"}, "403": {"description": "Unknown address"},
                    "409": {"description": "None is stored"}, "503": {"description": "The disk is full"},
                },
            }},
        },
    }  # fmt: skip
