"""The overview of a run: patient, date, picture and products of each series, with links into the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from ctenrich.records import ObjectKind
from ctenrich.view.contents import RunView, Shown
from ctenrich.view.pages import page, patient_text, series_address
from ctenrich.view.report_page import report_title

__all__ = ["SERIES_SHOWN", "OverviewRequest", "overview_page"]

SERIES_SHOWN = 50
"""Series of one page."""


@dataclass(frozen=True, kw_only=True)
class OverviewRequest:
    """The part of a run's series that a reader asked for."""

    find: str = ""
    """Part of a patient ID, a UID or a description; empty: all series."""
    number: int = 1
    """Number of the page, from 1."""


def overview_page(view: RunView, asked: OverviewRequest, *, has_report: bool, note: str = "") -> str:
    """Make a page of the list of series.

    Parameters
    ----------
    view : RunView
        The run.
    asked : OverviewRequest
        The part of the list.
    has_report : bool
        Whether to link the report.
    note : str
        Shown below the list.

    Returns
    -------
    str
        HTML.
    """
    found = [uid for uid in view.series if _matches(view, uid, asked.find)] if asked.find else view.series
    pages = max(-(-len(found) // SERIES_SHOWN), 1)
    number = min(max(asked.number, 1), pages)
    shown = found[(number - 1) * SERIES_SHOWN : number * SERIES_SHOWN]
    report = Markup(' · <a href="/report/index.html">The report of this run</a>') if has_report else ""
    body = Markup("<p>{}{}</p>{}{}{}{}<p class=soft>{}</p>").format(
        f"{len(found)} of {len(view.series)} series" if asked.find else f"{len(found)} series",
        report,
        _find_form(asked.find) if len(view.series) > 1 else "",
        Markup("").join(_card(view, uid) for uid in shown),
        "" if shown else Markup("<p>No series has this text in its patient ID, UID or description.</p>"),
        _page_links(asked.find, number, pages),
        note,
    )
    return page(f"Run {view.workspace.root.name}", body, view.demonstration)


def _matches(view: RunView, uid: str, text: str) -> bool:
    header = view.header(uid)
    values = (uid, header["PatientID"], header["SeriesDescription"], header["StudyDescription"])
    return any(text.casefold() in value.casefold() for value in values)


def _find_form(text: str) -> Markup:
    return Markup(
        '<form action="/" role="search"><label>Find a series by patient ID, UID or description '
        '<input name="find" type="search" value="{}"></label> <button>Find</button></form>'
    ).format(text)


def _page_links(text: str, number: int, pages: int) -> Markup:
    if pages == 1:
        return Markup("")
    find = f"&find={quote(text)}" if text else ""
    links = [
        Markup('<a href="/?page={}{}">{}</a>').format(other, find, words)
        for other, words in ((number - 1, "Previous page"), (number + 1, "Next page"))
        if 1 <= other <= pages
    ]
    return Markup('<p class="links">Page {} of {} {}</p>').format(number, pages, Markup(" ").join(links))


def _card(view: RunView, uid: str) -> Markup:
    header, record, objects = view.header(uid), view.record(uid), view.objects(uid)
    segmented = [one.product for one in objects if one.item.kind == ObjectKind.SEG]
    first = segmented[0] if segmented else ""
    described = ": ".join(part for part in (header["StudyDescription"], header["SeriesDescription"]) if part)
    scanner = " ".join(part for part in (header["Manufacturer"], header["ManufacturerModelName"]) if part)
    kernel = f"kernel {header['ConvolutionKernel']}" if header["ConvolutionKernel"] else ""
    spacing = (
        f"{len(record.slices)} slices of {record.rows} x {record.columns}, {record.slice_spacing:.3g} mm apart, "
        f"pixels of {record.pixel_spacing[0]:.3g} mm"
    )
    return Markup(
        '<article class="card">{}<div><h2>{}</h2><p>{}</p><p class="soft">{}</p><ul>{}</ul><p class="uid">{}</p>'
        "</div></article>"
    ).format(
        _picture(view, uid, first),
        patient_text(header),
        described,
        " · ".join(part for part in (spacing, scanner, kernel) if part),
        Markup("").join(_product_lines(uid, objects)) or _ct_line(uid),
        uid,
    )


def _picture(view: RunView, uid: str, product: str) -> Markup:
    if view.volume(uid) is None:
        return Markup("")
    text = "Coronal plane with the segments of the first product" if product else "Coronal plane"
    picture = series_address("picture/{}/coronal", uid, product)
    return Markup('<a href="{}"><img src="{}" alt="{}" loading="lazy"></a>').format(
        series_address("open", uid, product), picture, text
    )


def _ct_line(uid: str) -> Markup:
    return Markup('<li>No product has been written. <span class="links">{}</span></li>').format(_open_links(uid, ""))


def _open_links(uid: str, product: str) -> Markup:
    return Markup('<a href="{}">Slices</a><a href="{}">Three planes</a>').format(
        series_address("open", uid, product), series_address("open", uid, product, layout="mpr")
    )


def _product_lines(uid: str, objects: Sequence[Shown]) -> list[Markup]:
    """One line per product, those with a segmentation first."""
    lines = []
    segmented = [one.product for one in objects if one.item.kind == ObjectKind.SEG]
    for product in dict.fromkeys([*segmented, *(one.product for one in objects)]):
        own = [one for one in objects if one.product == product]
        links = [_open_links(uid, product)] if any(one.item.kind == ObjectKind.SEG for one in own) else []
        links += [
            Markup('<a href="/sr/{}/{}">{}</a>').format(uid, one.item.sop_instance_uid, report_title(one))
            for one in own
            if one.item.kind != ObjectKind.SEG
        ]
        text = Markup('<li>{}<br><span class="links">{}</span></li>')
        lines.append(text.format(own[0].name, Markup("").join(links)))
    return lines
