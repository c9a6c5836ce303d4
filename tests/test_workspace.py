"""Files appear whole or not at all; names stay inside the folder; records come back equal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from ctenrich.errors import InputError, UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Product, ProductKind, Severity, Volume
from ctenrich.workspace import (
    Workspace,
    atomic_open,
    check_uid,
    files_below,
    input_files,
    load_array,
    load_record,
    remove_temporaries,
    save_array,
    save_record,
    sha256_of_array,
    write_bytes,
)
from tests.support.flushed import record_flushes
from tests.support.permissions import folder_of_plain_user

IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
VOLUME = Volume("1.2", "volume/ct.npy", (2, 3, 4), IDENTITY, (3.0, 1.0, 1.0), "1.9", "ab")


@pytest.mark.parametrize("uid", ["../x", "", "..", "1.2/3", "1.2\n", "1" * 65, "1.2\0", "$(id)", "-1.2", "1,2", "é"])
def test_identifiers_that_could_harm_are_refused_and_not_repeated(uid: str) -> None:
    with pytest.raises(UnsafeInputError) as caught:
        check_uid(uid)
    assert not uid or uid not in str(caught.value) or uid in {"..", "-1.2"}


def _write_half(path: Path) -> None:
    with atomic_open(path) as handle:
        handle.write(b"new, half")
        raise RuntimeError("stop")


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"):
        _write_half(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    with atomic_open(path) as handle:
        handle.write(b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stays = [f".a.npy.{os.getpid()}.ab.tmp", "a.npy", ".hidden", f"a.npy.{ended.pid}.ab.tmp"]
    goes = [f".a.npy.{pid}.ab.tmp" for pid in (ended.pid, 10**9, 10**30, "-1", "x")] + [".tmp"]
    for name in (*stays, *goes):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(b"half")
    folder = tmp_path / f".s5cmd.{ended.pid}.ab.tmp"
    folder.mkdir()
    (folder / "1.part").write_bytes(b"half")
    remove_temporaries(tmp_path)
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == sorted(stays)
    assert not folder.exists()
    foreign = tmp_path / ".b.npy.999999999.ab.tmp"  # more than Linux gives: alive on another system only
    foreign.write_bytes(b"half")
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: pid == 999_999_999)
    remove_temporaries(tmp_path)
    assert foreign.exists(), "psutil is asked, as not every system has /proc"


def test_records_come_back_equal_and_with_the_same_bytes(tmp_path: Path) -> None:
    record = Volume(**{**VOLUME.__dict__, "issues": (Issue("r", Severity.NOTE, "o", "m"),)})
    save_record(tmp_path / "v.json", record)
    assert load_record(tmp_path / "v.json", Volume) == record
    first = (tmp_path / "v.json").read_bytes()
    save_record(tmp_path / "v.json", record)
    assert (tmp_path / "v.json").read_bytes() == first


def test_a_missing_or_broken_record_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NOT_PREPARED"):
        load_record(tmp_path / "none.json", Volume)
    (tmp_path / "bad.json").write_text('{"series_instance_uid": 3}')
    with pytest.raises(InputError, match="BAD_RUN"):
        load_record(tmp_path / "bad.json", Volume)


def test_paths_of_records_stay_in_the_room(workspace: Workspace) -> None:
    assert workspace.resolve("1.2", "volume/ct.npy") == workspace.series_dir("1.2") / "volume/ct.npy"
    with pytest.raises(UnsafeInputError):
        workspace.resolve("1.2", "../1.3/volume/ct.npy")


def test_products_have_folders_that_every_file_system_takes(workspace: Workspace) -> None:
    product = Product(ProductKind.NNUNET, "Task055", "3d_fullres", ("0", "1"), mirror=False)
    assert str(product) == "nnunet:Task055:3d_fullres:0,1:nomirror"
    assert workspace.product_dir("1.2", product).name == "nnunet__Task055__3d_fullres__0-1__nomirror"
    with pytest.raises(UsageError):
        workspace.product_dir("1.2", Product(ProductKind.NNUNET, "../evil", "3d", ("0",)))


def test_arrays_are_memory_mapped_and_hashed_by_content(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save_array(tmp_path / "a.npy", array.transpose(2, 1, 0))
    loaded = load_array(tmp_path / "a.npy")
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable
    assert sha256_of_array(loaded) == sha256_of_array(array.transpose(2, 1, 0).copy())
    assert sha256_of_array(array) != sha256_of_array(array.reshape(4, 3, 2))


def test_listings_pass_over_files_that_others_rename_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2", "a", "c.tmp"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "c.tmp":  # between the listing and this call
            path.unlink()
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    found = files_below(tmp_path)
    assert [(path.relative_to(tmp_path).as_posix(), status.st_size) for path, status in found] == [("a", 1), ("b/2", 3)]
    assert files_below(tmp_path / "nothing") == []


def test_a_file_that_was_promised_has_its_folder_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = record_flushes(monkeypatch)
    write_bytes(tmp_path / "small", b"1")
    assert str(tmp_path) not in synced
    write_bytes(tmp_path / "promised", b"1", durable=True)
    assert synced[-1] == str(tmp_path), "after the rename"


def test_files_of_a_folder_that_cannot_be_listed_are_not_left_out() -> None:
    with folder_of_plain_user() as folder:
        (folder / "a" / "b").mkdir(parents=True)
        for place in ("a/b/1", "a/2", "3"):
            (folder / place).write_bytes(b"x")
        (folder / "link").symlink_to(folder / "3")
        (folder / "others").symlink_to(folder / "a")
        names = [path.relative_to(folder).as_posix() for path in input_files(folder)]
        assert names == ["3", "a/2", "a/b/1", "link"]
        assert input_files(folder / "3") == [folder / "3"]
        assert [path.name for path, _ in files_below(folder)] == ["3", "2", "1"]
        (folder / "a" / "b").chmod(0)
        for listed in (files_below, input_files):
            with pytest.raises(InputError, match="cannot be read: Permission denied") as caught:
                listed(folder)  # type: ignore[operator]
            assert caught.value.reason is Reason.IO_ERROR
        closed: list[Path] = []
        assert len(files_below(folder, closed=closed)) == 2
        assert [path.name for path in closed] == ["b"]
