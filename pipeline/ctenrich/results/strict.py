"""Reduce extended rows to those of IDC's own views.

IDC's views (release 24 of their SQL) drop label map SEGs; groups without tracking, finding, finding site, source
series or an available SEG; modifiers that are not the first child of their item; and in the qualitative
view every group whose finding site is not coded (G-C0E3, SRT) and every item whose name is coded in DCM or SRT.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ctenrich.dicom.nested import Nested
from ctenrich.dicom.sop_classes import SEGMENTATION
from ctenrich.dicom.sr_tree import children, first, has_name, item_name
from ctenrich.results.content import code3, code4, empty_code
from ctenrich.results.rows import Rows

__all__ = ["strict_rows"]

_NEEDED = (
    "trackingIdentifier",
    "trackingUniqueIdentifier",
    "finding",
    "findingSite",
    "sourceSegmentedSeriesUID",
    "segmentationInstanceUID",
)
_OLD_SITE = ("G-C0E3", "SRT")
_SITES = (("363698007", "SCT"), _OLD_SITE)


def strict_rows(rows: Rows, segmentations: Mapping[str, str]) -> Rows:
    """Make the rows of the ``strict_`` tables.

    Parameters
    ----------
    rows : Rows
        The extended rows of one object.
    segmentations : mapping
        SOP Instance UID -> Series Instance UID of every available SEG (not label maps).

    Returns
    -------
    dict
        Table name -> rows.
    """
    out: Rows = defaultdict(list)
    out["strict_segmentations"] = [r for r in rows["segmentations"] if r["SOPClassUID"] == SEGMENTATION]
    kept: dict[int, str] = {}
    for row in rows["measurement_groups"]:
        series = segmentations.get(row["segmentationInstanceUID"] or "")
        if series is None or any(row[name] is None for name in _NEEDED):
            continue
        kept[id(row["contentSequence"])] = series
        out["strict_measurement_groups"].append({**row, "segmentationSeriesUID": series})
        out["strict_qualitative_measurements"] += _qualitative(row, series)
    for row in rows["quantitative_measurements"]:
        group_series = kept.get(id(row["contentSequence"]))
        if group_series is not None:
            out["strict_quantitative_measurements"].append(_quantitative(row, group_series))
    return out


def _quantitative(row: Nested, series: str) -> Nested:
    site = first(children(row["contentSequence"], "CODE", *_SITES))
    return {
        **row,
        "segmentationSeriesUID": series,
        "derivationModifier": _first_child(row["_item"], ("121401", "DCM")),
        "lateralityModifier": _first_child(site, ("272741003", "SCT")),
    }


def _first_child(item: Nested | None, name: tuple[str, str]) -> Nested:
    child = first(children(item or {}))
    if child is None or not has_name(child, (name,)):
        return empty_code()
    return code3(child.get("ConceptCodeSequence")) or empty_code()


def _qualitative(row: Nested, series: str) -> list[Nested]:
    site = first(children(row["contentSequence"], "CODE", _OLD_SITE))
    if site is None:
        return []
    return [
        {
            **row,
            "segmentationSeriesUID": series,
            "findingSite": code4(site.get("ConceptCodeSequence")),
            "Quantity": code3(item.get("ConceptNameCodeSequence")),
            "Value": code4(item.get("ConceptCodeSequence")),
        }
        for item in children(row["contentSequence"], "CODE")
        if (item_name(item) or ("", ""))[1] not in ("DCM", "SRT")
    ]
