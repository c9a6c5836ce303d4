"""HTML pages beside OHIF: the list of a run's series, and structured reports, which OHIF does not show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ctenrich.dicom.sr_tree import children, concept_code

__all__ = ["banner", "closed_page", "forward_page", "front_page", "report_page"]

_STYLE = Markup(
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1b2430}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:6px 10px;vertical-align:top;"
    "border-bottom:1px solid #dde3ea}.uid{font-family:monospace;font-size:.85em;overflow-wrap:anywhere}"
    "ul.tree{padding-left:1.2rem;list-style:none;border-left:1px solid #dde3ea}a{color:#0b5cad}"
)
_PAGE = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>{title}</title><style>{style}</style></head><body>{banner}<h1>{title}</h1>{body}</body></html>"
)
_BANNER = Markup(
    '<p role="note" style="position:fixed;{edge}:0;left:0;right:0;z-index:2147483647;margin:0;padding:4px 16px;'
    'background:#8a1c12;color:#fff;font:14px/1.4 system-ui,sans-serif;text-align:center;pointer-events:none">'
    "<b>DEMONSTRATION.</b> Made with {models}, for demonstration only: the results mean nothing for a patient.</p>"
)

_FOLD = Markup('<li><details><summary>{} images</summary><ul class="tree">{}</ul></details></li>')
_MANY = 8
"""Longer rows of images are folded, so that the measurements stay visible."""


def banner(models: Sequence[str], edge: str = "top") -> Markup:
    """Make the banner of a run with demonstration models.

    Parameters
    ----------
    models : sequence of str
        Their names; empty: no banner.
    edge : str
        Edge of the window, ``top`` or ``bottom``.

    Returns
    -------
    Markup
        HTML; empty without such models.
    """
    return _BANNER.format(models=", ".join(models), edge=edge) if models else Markup("")


def front_page(
    series: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    name: str,
    has_report: bool,
    note: str = "",
    *,
    demonstration: Sequence[str] = (),
) -> str:
    """Make the page that lists the series.

    Parameters
    ----------
    series : sequence of (UID, links)
        Each link is (address, text).
    name : str
        Name of the run.
    has_report : bool
        Whether to link the report.
    note : str
        Shown below the list.
    demonstration : sequence of str
        Names of the run's demonstration models, for the banner.

    Returns
    -------
    str
        HTML.
    """
    rows = []
    for uid, links in series:
        shown = Markup("<br>").join(Markup('<a href="{}">{}</a>').format(address, text) for address, text in links)
        rows.append(Markup('<tr><td class="uid">{}</td><td>{}</td></tr>').format(uid, shown))
    report = Markup('<p><a href="/report/index.html">The report of this run</a></p>') if has_report else Markup("")
    table = Markup("<table><tr><th>Series</th><th>Open</th></tr>{}</table>").format(Markup("").join(rows))
    body = report + table + Markup("<p>{}</p>").format(note)
    return _PAGE.format(title=f"Run {name}", style=_STYLE, body=body, banner=banner(demonstration))


def forward_page(address: str) -> str:
    """Make a page that goes on to an address of this server at once."""
    body = Markup('<meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">Open the viewer</a></p>')
    return _PAGE.format(title="ctenrich view", style=_STYLE, body=body.format(address), banner="")


def closed_page(name: str, address: str, demonstration: Sequence[str] = ()) -> str:
    """Make the page for a browser without cookie: it was not opened yet, or a page elsewhere (the report) led here.

    Parameters
    ----------
    name : str
        Name of the run.
    address : str
        The address that was asked for, on this server; a browser that was let in gets there by a link of this page.
    demonstration : sequence of str
        Names of the run's demonstration models, for the banner.

    Returns
    -------
    str
        HTML.
    """
    text = Markup(
        '<p><a href="{}">Go on to the viewer</a>, if this browser has opened it before.</p>'
        "<p>Otherwise open the address that "
        "<code>ctenrich view</code> printed in its terminal (<code>Open http://127.0.0.1...</code>) once in "
        "this browser; after that, links of the report work too.</p>"
        "<p>If another viewer answers here, end it, and start <code>ctenrich view {}</code> again.</p>"
    ).format(address, name)
    return _PAGE.format(title="Not opened yet", style=_STYLE, body=text, banner=banner(demonstration))


def report_page(path: Path, demonstration: Sequence[str] = ()) -> str:
    """Make a page that shows an SR as an indented list of its content items.

    Parameters
    ----------
    path : Path
        File of the SR.
    demonstration : sequence of str
        Names of the run's demonstration models, for the banner.

    Returns
    -------
    str
        HTML.
    """
    import pydicom

    data = pydicom.dcmread(path, stop_before_pixels=True)
    title = str(data.get("SeriesDescription") or "Structured report")
    body = Markup('<p><a href="/">all series</a> · <span class="uid">{}</span></p>{}').format(
        data.SOPInstanceUID, _content_list(data)
    )
    return _PAGE.format(title=title, style=_STYLE, body=body, banner=banner(demonstration))


def _content_list(item: Any) -> Markup:
    parts = []
    for images, items in groupby(children(item), key=lambda child: child.ValueType == "IMAGE"):
        shown = [_content_item(child) for child in items]
        text = Markup("").join(shown)
        parts.append(_FOLD.format(len(shown), text) if images and len(shown) > _MANY else text)
    return Markup('<ul class="tree">{}</ul>').format(Markup("").join(parts)) if parts else Markup("")


def _content_item(item: Any) -> Markup:
    code = concept_code(item)
    name = item.ValueType if code is None else code.get("CodeMeaning")
    return Markup("<li><b>{}</b> {}{}</li>").format(name, _item_value(item), _content_list(item))


def _item_value(item: Any) -> str:
    kind = item.ValueType
    if kind == "NUM" and item.get("MeasuredValueSequence"):
        measured = item.MeasuredValueSequence[0]
        return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
    if kind == "CODE":
        code = item.ConceptCodeSequence[0]
        return f"{code.CodeMeaning} ({code.get('CodeValue', '')}, {code.CodingSchemeDesignator})"
    if kind in ("IMAGE", "COMPOSITE") and item.get("ReferencedSOPSequence"):
        reference = item.ReferencedSOPSequence[0]
        segment = reference.get("ReferencedSegmentNumber")
        return f"{reference.ReferencedSOPInstanceUID}{f' segment {segment}' if segment else ''}"
    return str(item.get("TextValue") or item.get("UID") or item.get("PersonName") or item.get("DateTime") or "")
