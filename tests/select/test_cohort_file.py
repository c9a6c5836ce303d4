"""The cohort file is read series by series, and an edited value is noticed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Companion, CompanionLink, Instance, Issue, SeriesEntry, SeriesFacts, Severity
from ctenrich.select import cohort_file
from ctenrich.select.cohort_file import (
    StoredSeries,
    cohort_table,
    entries_at,
    open_cohort,
    read_cohort,
    sizes_of,
    uids_of,
    write_cohort_table,
)
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.select.sizes import size_of_series

CONTOURS = Companion(
    modality="RTSTRUCT",
    series_instance_uid="1.2.9",
    instance=Instance("1.2.9.1", "file:///rs.dcm", 10, "m", "c"),
    link=next(iter(CompanionLink)),
)


def entry(number: int, slices: int = 3, *, size: int | None = 100) -> SeriesEntry:
    uid = f"1.2.{number}"
    return SeriesEntry(
        "coll",
        f"P{number}",
        "1.2",
        uid,
        instances=tuple(Instance(f"{uid}.{k}", f"gs://b/{uid}/{k}.dcm", size) for k in range(slices)),
        companions=(CONTOURS,) if number % 3 == 0 else (),
        license_short_name="CC BY 4.0",
        source_doi="10.1/x",
        expected_instances=slices if number % 2 else None,
        notes=(Issue("select.note", Severity.WARNING, "x", "y"),) if number % 4 == 0 else (),
        facts=SeriesFacts(manufacturer="ACME", slice_thickness=2.5 if number % 2 else None),
    )


def stored(path: Path, count: int) -> tuple[Cohort, Path]:
    series = tuple(entry(number) for number in range(count))
    cohort = Cohort("c", series, cohort_sha256(series))
    write_cohort_table(path, cohort.name, cohort.sha256, cohort.series)
    return cohort, path


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_file, "_AT_ONCE", 4)
    monkeypatch.setattr(cohort_file, "_ROW_GROUP", 8)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 33])
def test_series_read_back_as_they_were(tmp_path: Path, count: int) -> None:
    cohort, path = stored(tmp_path / "c.parquet", count)
    found = read_cohort(path)
    assert found == cohort
    assert uids_of(found) == uids_of(cohort)
    assert list(sizes_of(found)) == list(sizes_of(cohort)) == [size_of_series(e) for e in cohort.series]
    assert pq.ParquetFile(path).num_row_groups == -(-count // 8)
    assert isinstance(found.series, StoredSeries)


@pytest.mark.usefixtures("small_groups")
def test_single_series_and_slices_are_those_of_a_tuple(tmp_path: Path) -> None:
    cohort, path = stored(tmp_path / "c.parquet", 21)
    series, expected = read_cohort(path).series, cohort.series
    for index in (0, 5, 8, 20, -1, -21):
        assert series[index] == expected[index]
    for part in (slice(0, 3), slice(7, 18, 4), slice(None, None, -5), slice(30, 40), slice(-2, None)):
        assert series[part] == expected[part]
    with pytest.raises(IndexError):
        series[21]
    assert list(entries_at(read_cohort(path), {3, 17, 9})) == [expected[3], expected[9], expected[17]]


@pytest.mark.usefixtures("small_groups")
def test_row_groups_without_a_wanted_series_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = stored(tmp_path / "c.parquet", 33)
    read: list[list[int]] = []
    original = pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, batch_size: int, row_groups: list[int], **options: object) -> object:
        read.append(row_groups)
        return original(self, batch_size, row_groups, **options)

    series = read_cohort(path).series
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert series[32].series_instance_uid == "1.2.32"
    assert read == [[4]]


# ---------------------------------------------------------------- edits


def with_first(series: SeriesEntry, **values: object) -> SeriesEntry:
    first = dataclasses.replace(series.instances[0], **values)
    return dataclasses.replace(series, instances=(first, *series.instances[1:]))


EDITS = {
    "url": lambda e: with_first(e, url="gs://x/y"),
    "size": lambda e: with_first(e, size=101),
    "size to null": lambda e: with_first(e, size=None),
    "an instance less": lambda e: dataclasses.replace(e, instances=e.instances[1:]),
    "patient": lambda e: dataclasses.replace(e, patient_id="other"),
    "a companion more": lambda e: dataclasses.replace(e, companions=(*e.companions, CONTOURS)),
    "geometry": lambda e: dataclasses.replace(e, geometry_known=False),
    "facts": lambda e: dataclasses.replace(e, facts=SeriesFacts(manufacturer="ACME", slice_thickness=2.0)),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("at", [0, 6])
def test_an_edited_value_is_refused(tmp_path: Path, edit: str, at: int) -> None:
    cohort, path = stored(tmp_path / "c.parquet", 7)
    metadata = pq.read_metadata(path).metadata
    series = [EDITS[edit](e) if number == at else e for number, e in enumerate(cohort.series)]
    changed = cohort_table(Cohort("c", tuple(series), cohort.sha256)).replace_schema_metadata(metadata)
    pq.write_table(changed, path)
    with pytest.raises(UsageError) as caught:
        read_cohort(path)
    assert caught.value.reason is Reason.BAD_COHORT


@pytest.mark.parametrize("name", [b"study_instance_uid", b"md5"])
def test_a_column_whose_name_is_not_utf8_is_refused(tmp_path: Path, name: bytes) -> None:
    _, path = stored(tmp_path / "c.parquet", 2)
    path.write_bytes(path.read_bytes().replace(name, b"\xff" + name[1:]))
    with pytest.raises(UsageError) as caught:
        read_cohort(path)
    assert caught.value.reason is Reason.BAD_COHORT


def test_text_that_moves_between_values_is_noticed(tmp_path: Path) -> None:
    one, two = entry(1), entry(2)
    left = dataclasses.replace(one, patient_id="ab"), dataclasses.replace(two, patient_id="c")
    right = dataclasses.replace(one, patient_id="a"), dataclasses.replace(two, patient_id="bc")
    tables = [cohort_table(Cohort("c", series, "h")) for series in (left, right)]
    key = b"ctenrich.values_sha256"
    assert tables[0].schema.metadata[key] != tables[1].schema.metadata[key]


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(1, 40), count=st.integers(1, 40))
def test_the_row_groups_of_a_copy_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, groups: int, count: int
) -> None:
    folder = tmp_path_factory.mktemp("c")
    cohort, path = stored(folder / "c.parquet", count)
    table = pq.read_table(path).replace_schema_metadata(pq.read_metadata(path).metadata)
    pq.write_table(table, folder / "copy.parquet", row_group_size=groups, compression="none")
    assert read_cohort(folder / "copy.parquet") == cohort


# ---------------------------------------------------------------- the check is remembered


def test_a_checked_file_is_not_checked_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = stored(tmp_path / "cohort.parquet", 5)
    checks: list[str] = []
    original = cohort_file._check_values
    monkeypatch.setattr(cohort_file, "_check_values", lambda p, c: (checks.append(p.name), original(p, c)))
    open_cohort(path)
    open_cohort(path)
    assert len(checks) == 1
    os.utime(path, ns=(1, 1))
    open_cohort(path)
    assert len(checks) == 2
    table = pq.read_table(path)
    names = pa.array(["other"] * 5)
    changed = table.set_column(table.column_names.index("patient_id"), "patient_id", names)
    pq.write_table(changed.replace_schema_metadata(pq.read_metadata(path).metadata), path)
    with pytest.raises(UsageError):
        open_cohort(path)


def test_a_damaged_memory_of_the_check_is_no_check(tmp_path: Path) -> None:
    _, path = stored(tmp_path / "cohort.parquet", 2)
    mark = tmp_path / "cohort.checked.json"
    open_cohort(path)
    for content in (b"", b"[]", b"{}", b"\xff"):
        mark.write_bytes(content)
        assert len(open_cohort(path).series) == 2
        assert mark.read_bytes() != content
