"""The page of a structured report: tables, pictures and links to slices first, all content items folded below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from ctenrich.dicom.objects import header
from ctenrich.dicom.sr import read_sr
from ctenrich.dicom.sr_tree import children, concept_code
from ctenrich.records import ObjectKind
from ctenrich.view.contents import RunView, Shown
from ctenrich.view.pages import page, patient_text, series_address
from ctenrich.view.sr_tables import ReportTable, report_tables

__all__ = ["report_page", "report_title"]

_TITLES = {
    ObjectKind.SHAPE_SR: "Measurements",
    ObjectKind.DOSE_SR: "Doses",
    ObjectKind.FEATURES_SR: "Deep features",
    ObjectKind.LANDMARKS_SR: "Landmarks",
    ObjectKind.REGIONS_SR: "Regions",
}
_FOLD = Markup('<li><details><summary>{} images</summary><ul class="tree">{}</ul></details></li>')
_SIDES = {
    "axial": "the patient's right is on the left, anterior is up",
    "coronal": "the patient's right is on the left, the head is up",
    "sagittal": "anterior is on the left, the head is up",
}
"""Directions of the pictures."""
_MANY = 8
"""Longer rows of images are folded."""


def report_title(shown: Shown) -> str:
    """Name the contents of a report to a reader."""
    return _TITLES.get(ObjectKind(shown.item.kind), "Report") if shown.item.kind in set(ObjectKind) else "Report"


@dataclass(frozen=True, kw_only=True)
class _Links:
    """Addresses of slices in OHIF."""

    uid: str
    product: str
    slices: Sequence[str]

    def slice(self, index: int | None) -> Markup:
        """Link to a slice; empty without one."""
        if index is None:
            return Markup("")
        address = series_address("open", self.uid, self.product, slice=self.slices[index])
        return Markup('<a href="{}">slice {} of {}</a>').format(address, index + 1, len(self.slices))


def report_page(view: RunView, uid: str, shown: Shown) -> str:
    """Make the page of a report.

    Parameters
    ----------
    view : RunView
        The run.
    uid : str
        Series Instance UID of the CT.
    shown : Shown
        The report.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    InputError
        NOT_DICOM if the file is no structured report.
    """
    series = view.record(uid)
    links = _Links(uid=uid, product=shown.product, slices=series.sop_instance_uids)
    tables = report_tables(read_sr(shown.path), series, view.masks(uid, shown.product))
    body = Markup(
        '<p class="soft">{}</p><p>{}</p><p class="links"><a href="/">All series</a><a href="{}">'
        "Open in the viewer</a></p>{}{}{}<details><summary>All content items of the report, as it was written"
        '</summary><p class="uid">{}</p>{}</details>'
    ).format(
        patient_text(view.header(uid)),
        shown.name,
        series_address("open", uid, shown.product),
        Markup("").join(_table(table, links) for table in tables if not table.folded),
        _pictures(view, uid, shown.product),
        Markup("").join(_table(table, links) for table in tables if table.folded),
        shown.item.sop_instance_uid,
        _content_list(header(shown.path)),
    )
    return page(report_title(shown), body, view.demonstration)


def _table(table: ReportTable, links: _Links) -> Markup:
    heads = [Markup("<th>{}</th>").format(table.columns[0])]
    heads += [Markup('<th class="number">{}</th>').format(name) for name in table.columns[1:]]
    has_slices = any(row.slice_index is not None for row in table.rows)
    rows = []
    for row in table.rows:
        mark = Markup('<span class="mark" style="background:rgb{}"></span>').format(row.colour) if row.colour else ""
        cells = [Markup("<td>{}{}</td>").format(mark, row.cells[0])]
        cells += [Markup('<td class="number">{}</td>').format(cell) for cell in row.cells[1:]]
        cells += [Markup('<td class="links">{}</td>').format(links.slice(row.slice_index))] if has_slices else []
        rows.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    heads += [Markup("<th>Show</th>")] if has_slices else []
    text = Markup(
        '<div class="wide" tabindex="0" role="region" aria-label="{0}"><table>{1}<thead><tr>{2}</tr></thead><tbody>{3}'
        "</tbody></table></div>"
    ).format(
        table.caption,
        "" if table.folded else Markup("<caption>{}</caption>").format(table.caption),
        Markup("").join(heads),
        Markup("").join(rows),
    )
    if not table.folded:
        return text
    return Markup("<details><summary>{}</summary>{}</details>").format(table.caption, text)


def _pictures(view: RunView, uid: str, product: str) -> Markup:
    if view.volume(uid) is None:
        return Markup("")
    planes = ("coronal",) if view.landmarks(uid, product) else ("axial", "coronal", "sagittal")
    one = Markup('<figure><img src="{0}" alt="{1}" loading="lazy"><figcaption>{1}</figcaption></figure>')
    found = [
        one.format(
            series_address(f"picture/{{}}/{plane}", uid, product), f"{plane.capitalize()} plane: {_SIDES[plane]}"
        )
        for plane in planes
    ]
    return Markup('<div class="pictures">{}</div>').format(Markup("").join(found))


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
