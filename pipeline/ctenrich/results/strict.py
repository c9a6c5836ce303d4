"""Reduce extended rows to those of IDC's own views.

IDC's views (release 24 of their SQL) drop label map SEGs; groups without tracking, finding, finding site, source
series or an available SEG; modifiers that are not the first child of their item; and in the qualitative
view every group whose finding site is not coded (G-C0E3, SRT) and every item whose name is coded in DCM or SRT. Which
SEGs are available is known when all files have been read: the rows of other SEGs are dropped then.
"""

from __future__ import annotations

from collections import defaultdict

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


def strict_rows(rows: Rows) -> Rows:
    """Make the rows of the ``strict_`` tables, of available and other SEGs.

    Parameters
    ----------
    rows : Rows
        The extended rows of one object.

    Returns
    -------
    dict
        Table name -> rows.
    """
    out: Rows = defaultdict(list)
    out["strict_segmentations"] = [r for r in rows["segmentations"] if r["SOPClassUID"] == SEGMENTATION]
    kept: set[int] = set()
    for row in rows["measurement_groups"]:
        if any(row[name] is None for name in _NEEDED):
            continue
        kept.add(id(row["contentSequence"]))
        out["strict_measurement_groups"].append(row)
        out["strict_qualitative_measurements"] += _qualitative(row)
    out["strict_quantitative_measurements"] = [
        _quantitative(row) for row in rows["quantitative_measurements"] if id(row["contentSequence"]) in kept
    ]
    return out


def _quantitative(row: Nested) -> Nested:
    site = first(children(row["contentSequence"], "CODE", *_SITES))
    return {
        **row,
        "derivationModifier": _first_child(row["_item"], ("121401", "DCM")),
        "lateralityModifier": _first_child(site, ("272741003", "SCT")),
    }


def _first_child(item: Nested | None, name: tuple[str, str]) -> Nested:
    child = first(children(item or {}))
    if child is None or not has_name(child, (name,)):
        return empty_code()
    return code3(child.get("ConceptCodeSequence")) or empty_code()


def _qualitative(row: Nested) -> list[Nested]:
    site = first(children(row["contentSequence"], "CODE", _OLD_SITE))
    if site is None:
        return []
    return [
        {
            **row,
            "findingSite": code4(site.get("ConceptCodeSequence")),
            "Quantity": code3(item.get("ConceptNameCodeSequence")),
            "Value": code4(item.get("ConceptCodeSequence")),
        }
        for item in children(row["contentSequence"], "CODE")
        if (item_name(item) or ("", ""))[1] not in ("DCM", "SRT")
    ]
