"""The folder catalog: what a crawl keeps, skips, repeats and says of bad files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tests.support.catalog_cases import ROOT, header, write_series

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import FolderCatalog, IndexSummary, index_folders
from ctenrich.catalog.schema import COLUMNS
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason


def crawl(folder: Path, catalog: Path, **options: int) -> IndexSummary:
    return index_folders([folder], catalog, processes=options.get("processes", 1))


def rows(catalog: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(catalog), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_columns_have_names_types_and_modes_of_idc(tmp_path: Path) -> None:
    write_series(tmp_path / "in", count=2)
    crawl(tmp_path / "in", tmp_path / "c.duckdb")
    found = {name: kind for name, kind, *_ in rows(tmp_path / "c.duckdb", "DESCRIBE dicom_all")}
    assert list(found) == [c.name for c in COLUMNS]
    # retyped from IDC's published table: DS and IS are text, VM decides the mode
    assert found["ImagePositionPatient"] == found["PixelSpacing"] == found["ImageType"] == "VARCHAR[]"
    assert found["SliceThickness"] == found["InstanceNumber"] == found["KVP"] == "VARCHAR"
    assert found["Rows"] == found["instance_size"] == found["PixelPaddingValue"] == "BIGINT"
    assert found["SpiralPitchFactor"] == "DOUBLE"
    assert found["StudyDate"] == "DATE"
    assert found["StudyTime"] == "TIME"
    assert found["AcquisitionDateTime"] == "TIMESTAMP WITH TIME ZONE"
    assert found["collection_timestamp"] == "TIMESTAMP"
    assert found["PatientName"].startswith("STRUCT(Alphabetic STRUCT(FamilyName VARCHAR")
    assert found["ReferencedSeriesSequence"].endswith("[]")
    assert list(found)[:2] == ["collection_name", "collection_id"]


def test_a_row_holds_what_the_file_says_and_no_name(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path / "in", count=1)
    crawl(tmp_path / "in", tmp_path / "c.duckdb")
    (row,) = rows(
        tmp_path / "c.duckdb",
        "SELECT collection_id, PixelSpacing, SliceThickness, Rows, StudyDate::VARCHAR, StudyTime::VARCHAR, gcs_url, "
        "instance_size, ReferencedSeriesSequence, PatientName, TransferSyntaxUID FROM dicom_all",
    )
    assert row == (
        "local", ["0.70", "0.7"], "3.00", 2, "2020-01-02", "13:14:15.5", path.resolve().as_uri(),
        path.stat().st_size, [], None, "1.2.840.10008.1.2.1",
    )  # fmt: skip
    assert b"CANARY" not in (tmp_path / "c.duckdb").read_bytes()


def test_a_second_crawl_reads_only_what_is_new_and_drops_what_is_gone(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", count=5)
    catalog = tmp_path / "c.duckdb"
    assert crawl(tmp_path / "in", catalog).read == 5
    assert crawl(tmp_path / "in", catalog).read == 0
    paths[0].unlink()
    write_series(tmp_path / "in", count=2, series="2")
    summary = crawl(tmp_path / "in", catalog)
    assert (summary.read, summary.removed, summary.instances, summary.ct_series) == (2, 1, 6, 2)


def test_a_crawl_of_another_folder_keeps_the_first(tmp_path: Path) -> None:
    write_series(tmp_path / "a", count=2)
    write_series(tmp_path / "b", count=3, series="2")
    crawl(tmp_path / "a", tmp_path / "c.duckdb")
    assert crawl(tmp_path / "b", tmp_path / "c.duckdb").instances == 5


@pytest.mark.long
def test_two_processes_give_the_same_catalog_as_one(tmp_path: Path) -> None:
    for series in range(3):
        write_series(tmp_path / "in", count=200, series=str(series))
    crawl(tmp_path / "in", tmp_path / "one.duckdb", processes=1)
    crawl(tmp_path / "in", tmp_path / "two.duckdb", processes=2)
    ask = "SELECT * EXCLUDE (AcquisitionDateTime) FROM dicom_all ORDER BY SOPInstanceUID"
    assert rows(tmp_path / "one.duckdb", ask) == rows(tmp_path / "two.duckdb", ask)
    one, two = (FolderCatalog(tmp_path / f"{name}.duckdb").version for name in ("one", "two"))
    assert one == two


def test_a_stopped_crawl_goes_on(tmp_path: Path) -> None:
    write_series(tmp_path / "in", count=300)

    class Stop:
        def advance(self, task: str, amount: float = 1) -> None:
            raise KeyboardInterrupt

        def start(self, task: str, total: float | None = None) -> None: ...
        def note(self, message: str) -> None: ...
        def status(self, task: str, text: str) -> None: ...

        def finish(self, task: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1, progress=Stop())
    summary = crawl(tmp_path / "in", tmp_path / "c.duckdb")
    assert (summary.read, summary.instances) == (300 - 256, 300)


def test_a_crawl_that_is_killed_at_any_statement_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "ct", slices=2)
    catalog = tmp_path / "catalog.duckdb"
    left: list[Path] = []
    connect = duckdb.connect

    class Connection:
        """Keeps, after each statement, the files that a killed process would leave."""

        def __init__(self, inner: duckdb.DuckDBPyConnection) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def __enter__(self) -> Connection:
            return self

        def __exit__(self, *_: object) -> None:
            self.inner.close()

        def execute(self, *arguments: object) -> object:
            result = self.inner.execute(*arguments)  # type: ignore[arg-type]
            left.append(tmp_path / f"killed_{len(left)}")
            left[-1].mkdir()
            for file in tmp_path.glob("catalog.duckdb*"):
                shutil.copy(file, left[-1])
            return result

    monkeypatch.setattr(duckdb, "connect", lambda *args, **options: Connection(connect(*args, **options)))
    whole = crawl(tmp_path / "ct", catalog)
    monkeypatch.undo()
    assert len(left) > 40
    for folder in left[:: max(1, len(left) // 7)]:
        again = crawl(tmp_path / "ct", folder / "catalog.duckdb")
        assert (again.instances, again.series, again.files) == (whole.instances, whole.series, whole.files), folder


def test_junk_beside_the_images_is_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paths = write_series(folder, count=4)
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "junk.dcm").write_bytes(b"\xff" * 5000)
    paths[1].write_bytes(paths[1].read_bytes()[:-4])
    paths[2].write_bytes(paths[2].read_bytes()[:700])  # between two elements
    summary = crawl(folder, tmp_path / "c.duckdb")
    assert summary.other_files == 3
    assert dict(summary.faults)["TRUNCATED"] == 2
    assert dict(summary.faults)["NOT_DICOM"] == 2
    assert summary.instances == 4, "a file that was cut short stays in its series, so that nothing is silently lost"


def test_identical_copies_count_once_and_different_ones_stay(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paths = write_series(folder, count=3)
    shutil.copy(paths[0], folder / "again.dcm")
    other = pydicom.dcmread(paths[1])
    other.PixelData = b"\x01" * 8
    other.save_as(folder / "other.dcm")
    summary = crawl(folder, tmp_path / "c.duckdb")
    assert (summary.instances, summary.copies) == (4, 1)


def test_links_are_not_followed(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", count=2)
    outside = write_series(tmp_path / "outside", count=1, series="5")
    (tmp_path / "in" / "link.dcm").symlink_to(outside[0])
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert paths
    summary = crawl(tmp_path / "in", tmp_path / "c.duckdb")
    assert (summary.instances, summary.links) == (2, 2)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "series").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match="among 0 files, and 1 link, which are not followed") as caught:
        crawl(tmp_path / "links", tmp_path / "d.duckdb")
    assert caught.value.reason is Reason.EMPTY_INPUT


def test_a_deflated_bomb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    ds = header(1)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (tmp_path / "in").mkdir()
    ds.save_as(tmp_path / "in" / "bomb.dcm", enforce_file_format=True)
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    length = 400 * 1024**2
    element = b"\x09\x00\x01\x10OB\x00\x00" + length.to_bytes(4, "little")
    uid = f"{ROOT}.1".encode()
    study = b"\x20\x00\x0d\x00UI" + (len(uid) + len(uid) % 2).to_bytes(2, "little") + uid + b"\x00" * (len(uid) % 2)
    plain = (tmp_path / "in" / "bomb.dcm").read_bytes()
    start = 132 + 12 + int.from_bytes(plain[140:144], "little")
    with (tmp_path / "in" / "bomb.dcm").open("wb") as handle:
        handle.write(plain[:start] + engine.compress(b"\x08\x00\x60\x00CS\x02\x00CT" + element))
        for _ in range(100):
            handle.write(engine.compress(b"\x00" * (length // 100)))
        handle.write(engine.compress(study) + engine.flush())
    assert (tmp_path / "in" / "bomb.dcm").stat().st_size < 2 * 1024**2
    script = (
        "import resource, sys; from pathlib import Path; from ctenrich.catalog.headers import read_header\n"
        "import pydicom.datadict; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "faults = read_header(Path(sys.argv[1])).faults\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, [f[0].value for f in faults])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "in" / "bomb.dcm")], capture_output=True, text=True, check=True
    ).stdout
    kilobytes, _, faults = said.partition(" ")
    assert int(kilobytes) < 250 * 1024
    assert "DECOMPRESSION_BOMB" in faults


def test_a_deflated_slice_is_indexed(tmp_path: Path) -> None:
    ds = header(1)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (tmp_path / "in").mkdir()
    ds.save_as(tmp_path / "in" / "a.dcm")
    assert crawl(tmp_path / "in", tmp_path / "c.duckdb").ct_series == 1


@pytest.mark.parametrize("uid", ["../../../etc/x", "", "1.2.3$(id)", "-rf", "1" * 65])
def test_an_unsafe_uid_is_a_fault_and_writes_nothing_elsewhere(tmp_path: Path, uid: str) -> None:
    with pytest.warns(UserWarning, match="UI|UID") if uid else _nothing():
        write_series(tmp_path / "in", count=2, SeriesInstanceUID=uid)
    summary = crawl(tmp_path / "in", tmp_path / "c.duckdb")
    assert dict(summary.faults) == {"UNSAFE_IDENTIFIER": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.duckdb", "in"]


def _nothing():  # type: ignore[no-untyped-def]
    import contextlib

    return contextlib.nullcontext()


def test_empty_folder_and_no_ct_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        crawl(tmp_path / "empty", tmp_path / "a.duckdb")
    assert caught.value.reason is Reason.EMPTY_INPUT
    write_series(tmp_path / "mr", count=2, Modality="MR")
    with pytest.raises(InputError) as caught:
        crawl(tmp_path / "mr", tmp_path / "b.duckdb")
    assert caught.value.reason is Reason.NO_CT


@pytest.mark.parametrize("spec", ["folder:", "nothing", "folder:missing.duckdb", "s3://x", "folder:junk"])
def test_a_wrong_catalog_is_a_clear_error(tmp_path: Path, spec: str) -> None:
    (tmp_path / "junk").write_text("not a database")
    with pytest.raises(UsageError):
        open_catalog(spec.replace("junk", str(tmp_path / "junk")))


def test_another_duckdb_file_is_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
    with pytest.raises(UsageError) as caught:
        open_catalog(f"folder:{tmp_path / 'other.duckdb'}")
    assert caught.value.reason is Reason.BAD_PARAMETER


@pytest.mark.data
def test_real_series_are_found(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    summary = crawl(real_data("LUNG1-005"), tmp_path / "c.duckdb")
    assert (summary.instances, summary.series, summary.ct_series) == (93, 3, 1)
