"""A crawl is complete or says so: faults of single files, crawls that did not end, and what both mean for selection."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pydicom
import pytest
from tests.support.catalog_cases import ROOT, header, write_series, write_structures
from tests.support.cohorts import TINY

from ctenrich.catalog import open_catalog
from ctenrich.catalog.damage import DamageKind
from ctenrich.catalog.folder import FolderCatalog, index_folders
from ctenrich.errors import InputError, UsageError
from ctenrich.phantom import write_phantom_study
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink, Severity
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.select.series_list import select_series_list


def crawl_and_select(folder: Path, **parameters: object) -> Selection:
    index_folders([folder], folder.parent / "c.duckdb", processes=1)
    return select_cohort("select_ct_series", open_catalog(f"folder:{folder.parent / 'c.duckdb'}"), parameters)


def excluded(selection: Selection) -> dict[str, list[str]]:
    return {row["series_instance_uid"]: row["reasons"] for row in selection.excluded.to_pylist()}


def damage_value(path: Path, tag: bytes, length: int) -> None:
    """Give an explicit VR element of the file another (odd) length, and the bytes that go with it."""
    data = path.read_bytes()
    at = data.index(tag)
    old = int.from_bytes(data[at + 6 : at + 8], "little")
    value = data[at + 8 : at + 8 + old].ljust(length, b"\1")[:length]
    path.write_bytes(data[: at + 6] + length.to_bytes(2, "little") + value + data[at + 8 + old :])


@pytest.mark.parametrize(
    ("tag", "name"), [(b"\x28\x00\x10\x00US", "Rows"), (b"\x28\x00\x00\x01US", "BitsAllocated"),
                      (b"\x28\x00\x11\x00US", "Columns")],
)  # fmt: skip
def test_an_element_of_odd_length_is_a_fault_of_its_file_alone(tmp_path: Path, tag: bytes, name: str) -> None:
    paths = write_series(tmp_path / "in", count=5)
    write_series(tmp_path / "other", count=4, series="2")
    damage_value(paths[2], tag, 3)
    summary = index_folders([tmp_path / "in", tmp_path / "other"], tmp_path / "c.duckdb", processes=1)
    assert summary.instances == 9
    assert dict(summary.faults) == {"DECODE_ERROR": 1}
    with duckdb.connect(str(tmp_path / "c.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT path, message FROM faults").fetchall() == [
            (str(paths[2].resolve()), f"{name} cannot be read")
        ]


def test_names_that_are_not_utf8_are_faults_by_an_escaped_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paths = write_series(folder, count=5)
    paths[4].rename(os.fsdecode(os.fsencode(folder) + b"/slice_\xe9.dcm"))
    Path(os.fsdecode(os.fsencode(folder) + b"/notes_\xfc.txt")).write_text("hello")
    write_series(Path(os.fsdecode(os.fsencode(folder) + b"/Bef\xf6rderung")), count=3, series="2")
    selection = crawl_and_select(folder)
    with duckdb.connect(str(tmp_path / "c.duckdb"), read_only=True) as connection:
        named = {Path(p).name for (p,) in connection.execute("SELECT path FROM faults").fetchall()}
    assert {"slice_\\xe9.dcm", "notes_\\xfc.txt"} <= named
    assert len(named) == 5
    assert excluded(selection) == {
        f"{ROOT}.1.1": ["INCOMPLETE"],  # the slice with the bad name is missing from it
        f"{ROOT}.1.2": ["INCOMPLETE"],
    }
    assert index_folders([folder], tmp_path / "c.duckdb", processes=1).read == 0, "what is known is not read again"


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "no bytes": lambda data: b"",
    "cut inside the file meta information": lambda data: data[:150],
    "cut before the series": lambda data: data[: data.index(b"\x20\x00\x0e\x00UI")],
    "cut after the series": lambda data: data[: data.index(b"\x28\x00\x02\x00")],
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: b"\xa7" * len(data),
    "first 4 kB zero": lambda data: bytes(min(4096, len(data) - 8)) + data[-8:],
    "another modality": lambda data: data.replace(b"\x08\x00\x60\x00CS\2\0CT", b"\x08\x00\x60\x00CS\2\0MR"),
    "modality unreadable": lambda data: data.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00\0\0"),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("number", [0, 4])
def test_a_broken_first_or_last_slice_never_shortens_a_series_in_silence(tmp_path: Path, cut: str, number: int) -> None:
    paths = write_series(tmp_path / "in", count=5)
    paths[number].write_bytes(CUTS[cut](paths[number].read_bytes()))
    selection = crawl_and_select(tmp_path / "in")
    if selection.cohort.series:
        # its row is in the cohort: the stage sort reads the file and refuses the series
        (entry,) = selection.cohort.series
        assert len(entry.instances) == 5
    else:
        reasons = excluded(selection)[f"{ROOT}.1.1"]
        assert {"INCOMPLETE", "MISSING_GEOMETRY", "NOT_CT"} & set(reasons)


@pytest.mark.parametrize("order", ["most_slices", "smallest_uid"])
def test_a_series_that_lacks_slices_is_not_the_one_of_its_study(tmp_path: Path, order: str) -> None:
    paths = write_series(tmp_path / "in" / "1", count=6)
    write_series(tmp_path / "in" / "2", count=4, series="2")
    write_series(tmp_path / "in" / "3", count=3, series="3")
    paths[5].write_bytes(bytes(3000))
    selection = crawl_and_select(tmp_path / "in", one_per_study=True, study_order=order)
    assert [s.series_instance_uid for s in selection.cohort.series] == [f"{ROOT}.1.2"]
    reasons = excluded(selection)
    assert reasons[f"{ROOT}.1.3"] == ["OTHER_SERIES_OF_STUDY"]
    assert reasons[f"{ROOT}.1.1"] == ["INCOMPLETE"]
    assert selection.parameters["incomplete"] == [], "the lock is run again with what the catalog knows then"


def test_a_series_in_two_collections_is_whole_in_neither(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in" / "1", count=6)
    write_series(tmp_path / "in" / "2", count=4, series="2")
    last = paths[5].rename(tmp_path / "later.dcm")
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", collection_id="first", processes=1)
    last.rename(paths[5])
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", collection_id="second", processes=1)
    catalog = open_catalog(f"folder:{tmp_path / 'c.duckdb'}")
    selection = select_cohort("select_ct_series", catalog, {"collections": ["first"]})
    assert [s.series_instance_uid for s in selection.cohort.series] == [f"{ROOT}.1.2"]
    assert excluded(selection) == {f"{ROOT}.1.1": ["MIXED_SERIES"]}


def test_a_series_of_which_nothing_can_be_read_is_accounted_for(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "1", count=4)
    write_series(Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/Bef\xf6rderung")), count=3, series="2")
    selection = crawl_and_select(tmp_path / "in")
    assert [s.series_instance_uid for s in selection.cohort.series] == [f"{ROOT}.1.1"]
    found = {row["series_instance_uid"]: row for row in selection.excluded.to_pylist()}
    row = found[f"{ROOT}.1.2"]
    assert (row["reasons"], row["num_instances"]) == (["INCOMPLETE"], 0)
    assert row["detail"] == "no file of the series could be read (IO_ERROR)"
    assert excluded(crawl_and_select(tmp_path / "in", series=[f"{ROOT}.1.1"])) == {}
    assert excluded(crawl_and_select(tmp_path / "in", patients=["P1"])) == {}
    catalog = open_catalog(f"folder:{tmp_path / 'c.duckdb'}")
    listed = select_series_list([f"{ROOT}.1.2", f"{ROOT}.1.9"], catalog)
    assert excluded(listed) == {f"{ROOT}.1.2": ["INCOMPLETE"], f"{ROOT}.1.9": ["NOT_IN_CATALOG"]}


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_a_slice_whose_uid_is_damaged_is_missing_in_its_series(tmp_path: Path, keyword: str) -> None:
    """The contours beside it are no series that it could belong to."""
    study = write_phantom_study(tmp_path / "in", TINY)
    last = study.slices[-1]
    uid = str(getattr(pydicom.dcmread(last, stop_before_pixels=True), keyword)).encode()
    last.write_bytes(last.read_bytes().replace(uid, uid[:-4] + b"\x80" + uid[-3:]))
    reasons = excluded(crawl_and_select(tmp_path / "in"))[study.series_instance_uid]
    assert reasons[0] in {"SeriesInstanceUID": ["INCOMPLETE"], "StudyInstanceUID": ["UNSAFE_IDENTIFIER"]}[keyword]


@pytest.mark.parametrize(
    ("keyword", "cut", "rule"),
    [
        ("SeriesInstanceUID", None, "catalog.stray_slice"),
        ("SeriesInstanceUID", 80, "catalog.stray_slice"),
        ("SeriesInstanceUID", 54, "catalog.stray_slice"),
        ("StudyInstanceUID", 2, "catalog.unreadable_file"),
    ],
)
def test_a_last_slice_with_another_valid_uid_leaves_a_warning(
    tmp_path: Path, keyword: str, cut: int | None, rule: str
) -> None:
    """No other file has the UID: nothing else shows that the series is one slice short."""
    study = write_phantom_study(tmp_path / "in", replace(TINY, rtstruct=False))
    last = study.slices[-1]
    content = last.read_bytes()
    uid = str(getattr(pydicom.dcmread(last, stop_before_pixels=True), keyword)).encode()
    content = content.replace(uid, uid[:-2] + b"." + uid[-1:])
    if cut is not None:  # bytes from the element Series Instance UID on
        content = content[: content.index(b"\x20\x00\x0e\x00UI") + cut]
    last.write_bytes(content)
    write_series(tmp_path / "in", count=4, series="2", study="2")
    found = {s.series_instance_uid: s.notes for s in crawl_and_select(tmp_path / "in").cohort.series}
    assert [(n.rule, n.severity) for n in found[study.series_instance_uid]] == [(rule, Severity.WARNING)]
    # of another study; but where the file's own study is unknown, it may be of this one
    assert len(found[f"{ROOT}.2.2"]) == (keyword == "StudyInstanceUID")


def test_several_unreadable_files_of_one_unknown_series_concern_no_other(tmp_path: Path) -> None:
    write_series(tmp_path / "in", count=5)
    for number, path in enumerate(write_series(tmp_path / "in", count=4, series="2")):
        path.rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xf6%d" % number))
    selection = crawl_and_select(tmp_path / "in")
    (entry,) = selection.cohort.series
    assert entry.notes == ()
    assert excluded(selection) == {f"{ROOT}.1.2": ["INCOMPLETE"]}


def test_beside_several_series_a_broken_file_is_a_warning_unless_it_names_one(tmp_path: Path) -> None:
    first = write_series(tmp_path / "in", count=5)
    write_series(tmp_path / "in", count=4, series="2")
    write_series(tmp_path / "elsewhere", count=4, series="3")
    first[4].write_bytes(bytes(3000))
    (tmp_path / "in" / "readme.txt").write_text("text")
    index_folders([tmp_path / "in", tmp_path / "elsewhere"], tmp_path / "c.duckdb", processes=1)
    catalog = FolderCatalog(tmp_path / "c.duckdb")
    assert [(d.series[-1], d.kind, Path(d.path).name) for d in catalog.damage()] == [
        ("1", DamageKind.BESIDE, first[4].name), ("2", DamageKind.BESIDE, first[4].name),
    ]  # fmt: skip
    chosen = select_cohort("select_ct_series", catalog, {}).cohort.series
    assert [[(n.rule, n.severity) for n in s.notes] for s in chosen] == [
        [("catalog.unreadable_file", Severity.WARNING)], [("catalog.unreadable_file", Severity.WARNING)], [],
    ]  # fmt: skip


def test_a_damaged_structure_set_is_handed_on_and_not_absent(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "ct", count=5)
    write_series(tmp_path / "in2" / "ct", count=5, study="2", patient="P2")
    rt = tmp_path / "in" / "rt" / "rt.dcm"
    write_structures(rt, frame=f"{ROOT}.1.99", series=f"{ROOT}.1.1")
    rt.write_bytes(rt.read_bytes()[:700])
    index_folders([tmp_path / "in", tmp_path / "in2"], tmp_path / "c.duckdb", processes=1)
    first, second = select_cohort("select_ct_series", open_catalog(f"folder:{tmp_path / 'c.duckdb'}"), {}).cohort.series
    assert [(c.modality, c.link) for c in first.companions] == [("RTSTRUCT", CompanionLink.UNREADABLE)]
    assert [n.rule for n in first.notes] == ["companion.unreadable"]
    assert (second.companions, second.notes) == ((), ())


def test_a_catalog_knows_whether_its_crawl_ended(tmp_path: Path) -> None:
    write_series(tmp_path / "in", count=300)
    write_series(tmp_path / "other", count=4, series="2")

    class Stop:
        def advance(self, task: str, amount: float = 1) -> None:
            raise KeyboardInterrupt

        def start(self, task: str, total: float | None = None) -> None: ...
        def note(self, message: str) -> None: ...
        def status(self, task: str, text: str) -> None: ...
        def finish(self, task: str) -> None: ...

    spec = f"folder:{tmp_path / 'c.duckdb'}"
    with pytest.raises(KeyboardInterrupt):
        index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1, progress=Stop())
    refused = open_catalog(spec)
    with pytest.raises(UsageError) as caught:
        select_cohort("select_ct_series", refused, {})
    assert caught.value.reason is Reason.UNFINISHED_CRAWL
    assert "index again" in (caught.value.hint or "")
    refused.close()
    index_folders([tmp_path / "other"], tmp_path / "c.duckdb", processes=1)
    refused = open_catalog(spec)
    with pytest.raises(UsageError, match="UNFINISHED_CRAWL"):
        select_cohort("select_ct_series", refused, {})  # a crawl of another folder changes nothing
    refused.close()
    partial = open_catalog(spec, partial=True)
    loud = select_cohort("select_ct_series", partial, {})
    partial.close()
    assert [s.series_instance_uid[-1] for s in loud.cohort.series] == ["2"]
    assert excluded(loud) == {f"{ROOT}.1.1": ["MISSING_SLICE"]}
    assert loud.notes[0].startswith("INCOMPLETE CATALOG")
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    whole = select_cohort("select_ct_series", open_catalog(spec), {})
    assert whole.notes == ()
    assert len(whole.cohort.series[0].instances) == 300


def test_a_catalog_of_the_first_version_is_used_with_a_note_and_healed_by_a_crawl(tmp_path: Path) -> None:
    write_series(tmp_path / "in", count=3)
    (tmp_path / "in" / "bad.dcm").write_bytes(bytes(3000))
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        connection.execute("DROP TABLE crawls")
        for name in ("study", "modality", "lost"):
            connection.execute(f"ALTER TABLE faults DROP COLUMN {name}")
        connection.execute("UPDATE about SET layout = 1")
    spec = f"folder:{tmp_path / 'c.duckdb'}"
    catalog = open_catalog(spec)
    old = select_cohort("select_ct_series", catalog, {})
    catalog.close()
    assert len(old.cohort.series) == 1
    assert "earlier version" in old.notes[0]
    assert index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1).read == 1
    assert excluded(select_cohort("select_ct_series", open_catalog(spec), {})) == {f"{ROOT}.1.1": ["INCOMPLETE"]}


def test_a_folder_that_cannot_be_listed_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in", count=3)
    write_series(tmp_path / "in" / "closed", count=3, series="2")
    scan = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "no")
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    summary = index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    assert (summary.instances, dict(summary.faults)) == (3, {"IO_ERROR": 1})
    (entry,) = select_cohort("select_ct_series", open_catalog(f"folder:{tmp_path / 'c.duckdb'}"), {}).cohort.series
    assert [n.rule for n in entry.notes] == ["catalog.unreadable_file"]


def test_index_says_when_a_new_collection_changes_nothing(tmp_path: Path) -> None:
    write_series(tmp_path / "in", count=3)
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", collection_id="first", processes=1)
    write_series(tmp_path / "in", count=2, series="2")
    again = index_folders([tmp_path / "in"], tmp_path / "c.duckdb", collection_id="second", processes=1)
    assert again.kept == (("first", 3),)
    assert "3 instances indexed before: the collection first is kept" in str(again)


def test_resent_images_count_once_and_other_pixels_conflict(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_series(folder, count=4)
    write_series(folder / "again", count=4, InstitutionName="B")  # other bytes, same image
    same = crawl_and_select(folder)
    (entry,) = same.cohort.series
    assert len(entry.instances) == 4
    assert [(n.rule, n.message) for n in entry.notes] == [("catalog.copies", "4 copies of slices were left out")]
    other = header(2, PixelData=b"\x01" * 8)
    other.save_as(folder / "other.dcm")
    assert excluded(crawl_and_select(folder)) == {f"{ROOT}.1.1": ["CONFLICTING_DUPLICATE"]}
    moved = header(3, ImagePositionPatient=["-10", "-20", "100"])
    moved.save_as(folder / "other.dcm")
    assert excluded(crawl_and_select(folder)) == {f"{ROOT}.1.1": ["CONFLICTING_DUPLICATE"]}


ODD: dict[str, Callable[[bytes], bytes]] = {
    "no preamble": lambda data: data[132:],
    "no preamble and no meta information": lambda data: data[data.index(b"\x08\x00\x08\x00CS") :],
    "prefix without preamble": lambda data: data[128:],
    "meta information states implicit VR": lambda data: data.replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"
    ),
    "meta information states big endian": lambda data: data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
}


@pytest.mark.parametrize("odd", ODD)
def test_index_reads_what_sort_reads(tmp_path: Path, odd: str) -> None:
    from ctenrich.dicom.ct_slice import read_slice

    plain = write_series(tmp_path / "plain", count=3)
    for path in plain:
        changed = ODD[odd](path.read_bytes())
        assert changed != path.read_bytes()
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / path.name).write_bytes(changed)
        slice_ = read_slice(tmp_path / "in" / path.name)
        assert slice_.transfer_syntax == "1.2.840.10008.1.2.1"
        assert (slice_.hu == 0).all()
    (entry,) = crawl_and_select(tmp_path / "in").cohort.series
    assert len(entry.instances) == 3


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x00", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", bytes(5000), b"\xff" * 300]
)
def test_what_is_no_data_set_is_no_instance(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match="EMPTY_INPUT"):
        index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
