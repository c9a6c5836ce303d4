"""Tables of reports: numbers as a reader wants them, landmarks from the head, regions as ranges."""

from __future__ import annotations

import pytest

from ctenrich.codes.mappings import Code, load_features
from ctenrich.dicom.sr import Group, Report, Site, Value
from ctenrich.view.sr_tables import number_text, report_tables
from tests.view.test_opening import masks, series

MM3, MM2, MM, ONE = (Code(unit, "UCUM", unit) for unit in ("mm3", "mm2", "mm", "1"))
TOP = Code("421812003", "SCT", "Top")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (679406.25, MM3, "679"),
        (61756.25, MM3, "61.8"),
        (1250.0, MM3, "1.25"),
        (46570.0, MM2, "466"),
        (0.118951, ONE, "0.119"),
        (-0.524, MM, "-0.524"),
        (12345678.0, MM, "12345678"),
        (0.0, MM, "0.000"),
        (None, MM, ""),
    ],
)
def test_numbers(value: float | None, unit: Code, text: str) -> None:
    assert number_text(value, unit) == text


def site(name: str, topography: Code | None = None) -> Site:
    return Site(Code(name, "SCT", name), None, topography)


def group(
    index: int, where: Site | None, *values: Value, images: tuple[str, ...] = (), segment: int | None = None
) -> Group:
    return Group(
        index=index,
        tracking_id=f"group {index}",
        tracking_uid="",
        finding=None,
        sites=(where,) if where else (),
        segment_instance_uid="1.9" if segment else "",
        segment_number=segment,
        source_series_uid="",
        source_images=images,
        algorithm=("", ""),
        values=values,
        evaluations=(),
    )


def report(*groups: Group) -> Report:
    return Report(
        sop_instance_uid="1.8",
        series_instance_uid="1.7",
        study_instance_uid="1.1",
        series_description="",
        title=None,
        observer="",
        groups=groups,
        evidence=(),
    )


def feature(name: str, value: float | None) -> Value:
    code = load_features()[name]
    return Value(quantity=code.quantity, value=value, unit=code.unit)


def test_organs_have_their_volume_first_and_all_quantities_folded() -> None:
    values = [feature("Elongation", 0.5), feature("Sphericity", 0.8), feature("VoxelVolume", 5000.0)]
    organs = [group(0, site("Heart"), *values, segment=1), group(1, site("Lung"), *values[:1], segment=2)]
    first, every = report_tables(report(*organs), series(40), masks((10, 21, 5), None))
    assert first.columns == ("Structure", "Volume from Voxel Summation (mL)", "Sphericity")
    assert [row.cells for row in first.rows] == [("Heart", "5.00", "0.800"), ("Lung", "", "")]
    assert [row.slice_index for row in first.rows] == [15, None]
    assert (first.folded, every.folded) == (False, True)
    assert every.rows[0].cells == ("Heart", "0.500", "0.800", "5.00")


def test_a_measurement_without_a_number_is_stated() -> None:
    (table,) = report_tables(report(group(0, site("Heart"), feature("VoxelVolume", None), segment=1)), series(4), None)
    assert table.rows[0].cells == ("Heart", "no value")


def test_landmarks_run_from_head_to_feet() -> None:
    score = feature("Elongation", 0.25)
    low = group(0, site("Lung", TOP), score, images=("1.2.3",))
    high = group(1, site("T1 vertebra", TOP), score, images=("1.2.31",))
    other = group(2, site("Eye", TOP), score, images=("9.9",))
    (table,) = report_tables(report(low, other, high), series(40), None)
    assert [row.cells[0] for row in table.rows] == ["T1 vertebra, top", "Lung, top", "Eye, top"]
    assert [row.cells[1] for row in table.rows] == ["100.0", "16.0", ""]
    assert [row.slice_index for row in table.rows] == [30, 2, None]


def test_regions_are_ranges_of_slices() -> None:
    chest, neck = site("Chest"), site("Neck")
    groups = [group(k, chest, images=(f"1.2.{k + 1}",)) for k in (0, 1, 2, 5)]
    groups += [group(9, neck, images=("1.2.3",))]
    (table,) = report_tables(report(*groups), series(8), None)
    assert [row.cells[:3] for row in table.rows] == [
        ("Chest", "6 to 6", "1"),
        ("Chest", "1 to 3", "3"),
        ("Neck", "3 to 3", "1"),
    ]
    assert table.rows[1].cells[3] == "10.0 to 16.0"
    assert [row.slice_index for row in table.rows] == [5, 1, 2]


def test_a_group_about_all_slices_is_no_region() -> None:
    whole = group(0, None, feature("Sphericity", 0.8), images=("1.2.1", "1.2.2"))
    (table,) = report_tables(report(whole), series(2), None)
    assert table.caption == "Other measurements"
