"""Tables of a structured report for a reader: organs by quantity, landmarks from head to feet, ranges of regions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ctenrich.codes.mappings import Code, codes_of, load_features
from ctenrich.dicom.sr import Group, Report, Site, Value
from ctenrich.records import SegmentMasks, SortedSeries
from ctenrich.view.opening import slice_of_segment

__all__ = ["ReportRow", "ReportTable", "number_text", "report_tables"]

_MAIN = ("VoxelVolume", "SurfaceArea", "Maximum3DDiameter", "Sphericity")
"""Features of the first table of organs; a second table has them all."""
_UNITS = {"mm3": (1e-3, "mL"), "mm2": (1e-2, "cm2"), "1": (1.0, "")}
"""UCUM unit of a report -> (factor, unit that is shown)."""


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """Row of a table."""

    cells: tuple[str, ...]
    slice_index: int | None = None
    """Slice of the row, to be linked; None: no slice belongs to it."""
    colour: tuple[int, int, int] | None = None
    """Colour of the organ in the pictures, RGB 0..255."""


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """One table of a report."""

    caption: str
    columns: tuple[str, ...]
    """The slice of a row has a column of its own, which is not listed here."""
    rows: tuple[ReportRow, ...]
    folded: bool = False
    """Whether the table is closed at first."""


def report_tables(report: Report, series: SortedSeries, masks: SegmentMasks | None) -> list[ReportTable]:
    """Arrange the measurement groups of a TID 1500 report in tables.

    Parameters
    ----------
    report : Report
        The report.
    series : SortedSeries
        The CT that it was made of.
    masks : SegmentMasks or None
        Masks of its product: the slice of an organ is the middle one of its mask.

    Returns
    -------
    list of ReportTable
        Empty if the report has no measurement group.
    """
    organs = [group for group in report.groups if group.segment_number is not None]
    images = [group for group in report.groups if group.segment_number is None and group.source_images]
    on_slices = [group for group in images if len(group.source_images) == 1]
    landmarks = [group for group in on_slices if any(site.topography for site in group.sites)]
    regions = [group for group in on_slices if group not in landmarks]
    others = [group for group in report.groups if group not in organs and group not in on_slices]
    tables = _organ_tables(organs, masks) if organs else []
    index = {uid: k for k, uid in enumerate(series.sop_instance_uids)}
    tables += [_landmark_table(landmarks, index, series)] if landmarks else []
    tables += [_region_table(regions, index, series)] if regions else []
    tables += [_quantity_table("Other measurements", others, [None] * len(others))] if others else []
    return tables


def number_text(value: float | None, unit: Code | None = None) -> str:
    """Write a number with three significant digits, at most three decimals and no exponent; empty without a number.

    Parameters
    ----------
    value : float or None
        In the unit of the report.
    unit : Code, optional
        That unit (UCUM): mm3 is shown in mL, mm2 in cm2.

    Returns
    -------
    str
        Without the unit.
    """
    if value is None:
        return ""
    shown = value * _UNITS.get(unit.value if unit else "", (1.0, ""))[0]
    size, decimals = abs(shown), 3
    for limit, kept in ((100, 0), (10, 1), (1, 2)):
        if size >= limit:
            decimals = kept
            break
    return f"{shown:.{decimals}f}"


def _site_text(sites: Sequence[Site], fallback: str) -> str:
    if not sites:
        return fallback
    site = sites[0]
    words = [site.code.meaning, *(code.meaning.lower() for code in (site.laterality, site.topography) if code)]
    return ", ".join(words)


def _organ_tables(groups: Sequence[Group], masks: SegmentMasks | None) -> list[ReportTable]:
    features = load_features()
    main = [(features[name].quantity.value, features[name].quantity.scheme) for name in _MAIN if name in features]
    slices = [slice_of_segment(masks, group.segment_number or 0) for group in groups]
    names = {segment.number: segment.name for segment in masks.segments} if masks else {}
    codes = [codes_of(names.get(group.segment_number or 0, "")) for group in groups]
    every = _quantity_table("All quantities", groups, slices)
    main_values = [replace(group, values=_chosen(group.values, main)) for group in groups]
    first = _quantity_table("Organs", main_values, slices)
    rows = tuple(
        replace(row, colour=code.colour if code else None) for row, code in zip(first.rows, codes, strict=True)
    )
    if len(first.columns) == 1 or len(first.columns) == len(every.columns):
        return [every]
    return [replace(first, rows=rows), replace(every, folded=True)]


def _chosen(values: Sequence[Value], wanted: Sequence[tuple[str, str]]) -> tuple[Value, ...]:
    """Values of some quantities (code value, scheme), in the order of these."""
    found = [value for value in values if (value.quantity.value, value.quantity.scheme) in wanted]
    return tuple(sorted(found, key=lambda value: wanted.index((value.quantity.value, value.quantity.scheme))))


def _quantity_table(caption: str, groups: Sequence[Group], slices: Sequence[int | None]) -> ReportTable:
    """One row per group, one column per quantity, in the order of their first use."""
    heads: dict[tuple[str, str, str], str] = {}
    found: list[dict[tuple[str, str, str], Value]] = []
    for group in groups:
        values = {}
        for value in group.values:
            derivation = value.derivation.meaning if value.derivation else ""
            key = (value.quantity.value, value.quantity.scheme, derivation)
            heads.setdefault(key, _heading(value, derivation))
            values[key] = value
        found.append(values)
    rows = [
        ReportRow(
            cells=(
                _site_text(group.sites, group.tracking_id),
                *(_value_text(values[key]) if key in values else "" for key in heads),
            ),
            slice_index=where,
        )
        for group, values, where in zip(groups, found, slices, strict=True)
    ]
    return ReportTable(caption=caption, columns=("Structure", *heads.values()), rows=tuple(rows))


def _heading(value: Value, derivation: str) -> str:
    unit = value.unit.value if value.unit else ""
    shown = _UNITS.get(unit, (1.0, unit))[1]
    name = f"{value.quantity.meaning}, {derivation.lower()}" if derivation else value.quantity.meaning
    return f"{name} ({shown})" if shown else name


def _value_text(value: Value) -> str:
    if value.value is None:
        return value.qualifier.meaning if value.qualifier else "no value"
    return number_text(value.value, value.unit)


def _landmark_table(groups: Sequence[Group], index: dict[str, int], series: SortedSeries) -> ReportTable:
    """Landmarks from head to feet, with the position of their slice."""
    rows = _quantity_table("Landmarks", groups, [index.get(group.source_images[0]) for group in groups])
    placed = [
        ReportRow(cells=(row.cells[0], _height(series, row.slice_index), *row.cells[1:]), slice_index=row.slice_index)
        for row in rows.rows
    ]
    placed.sort(key=lambda row: -series.slices[row.slice_index].position[2] if row.slice_index is not None else 1e9)
    columns = ("Landmark", "Position, feet to head (mm)", *rows.columns[1:])
    return ReportTable(caption="Landmarks, from head to feet", columns=columns, rows=tuple(placed))


def _region_table(groups: Sequence[Group], index: dict[str, int], series: SortedSeries) -> ReportTable:
    """Ranges of neighbouring slices of each region, from head to feet; the slice of a row is its middle one."""
    inside: dict[str, set[int]] = defaultdict(set)
    for group in groups:
        for site in group.sites:
            inside[_site_text([site], "")] |= {index[uid] for uid in group.source_images if uid in index}
    rows = []
    for region, slices in inside.items():
        for start, end in _ranges(slices):
            ends = (series.slices[start].position[2], series.slices[end].position[2])
            span = f"{min(ends):.1f} to {max(ends):.1f}"
            cells = (region, f"{start + 1} to {end + 1}", str(end - start + 1), span)
            rows.append((max(ends), ReportRow(cells=cells, slice_index=(start + end) // 2)))
    rows.sort(key=lambda item: -item[0])
    columns = ("Region", "Slices", "Number of slices", "Position, feet to head (mm)")
    return ReportTable(caption="Regions, from head to feet", columns=columns, rows=tuple(row for _, row in rows))


def _ranges(slices: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each unbroken run of slice indices."""
    out: list[tuple[int, int]] = []
    for k in sorted(slices):
        out = [*out[:-1], (out[-1][0], k)] if out and out[-1][1] == k - 1 else [*out, (k, k)]
    return out


def _height(series: SortedSeries, slice_index: int | None) -> str:
    return f"{series.slices[slice_index].position[2]:.1f}" if slice_index is not None else ""
