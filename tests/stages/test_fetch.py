from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.small_series import SERIES, folder_entry, write_small

from ctenrich.errors import CtenrichError, IncompleteError, InputError, UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Companion, CompanionLink, Instance
from ctenrich.series_store import SeriesStore
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.fetch import _TransferProgress, fetch_series
from ctenrich.storage.base import Transfer
from ctenrich.workspace import Workspace

COPY = Settings(fetch=FetchSettings(copy_local=True))


def listed(paths: list[Path]) -> tuple[Instance, ...]:
    return tuple(Instance(f"1.2.3.4.{k + 1}", p.as_uri(), p.stat().st_size) for k, p in enumerate(paths))


def test_local_files_are_read_in_place_and_hashed(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in")
    entry = folder_entry(instances=listed(paths), expected_instances=6)
    fetched = fetch_series(entry, settings=Settings(), workspace=workspace)
    assert [f.path for f in fetched.files] == [str(p) for p in paths]
    assert [f.sha256 for f in fetched.files] == [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    store = SeriesStore(workspace)
    store.save(fetched, SERIES)
    assert store.fetched(SERIES) == fetched
    assert not store.source_dir(SERIES).exists()


def test_copies_have_names_made_of_checked_identifiers(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "CANARY $(x)")
    fetched = fetch_series(folder_entry(instances=listed(paths)), settings=COPY, workspace=workspace)
    assert [f.path for f in fetched.files] == [f"source/1.2.3.4.{k + 1}.dcm" for k in range(6)]
    again = Workspace(tmp_path / "again")
    whole = fetch_series(folder_entry(tmp_path / "CANARY $(x)"), settings=COPY, workspace=again)
    assert len(whole.files) == 6
    assert all("CANARY" not in f.path and (again.series_dir(SERIES) / f.path).is_file() for f in whole.files)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"size": 7}, InputError, Reason.CHECKSUM),
        ({"md5": "0" * 32}, InputError, Reason.CHECKSUM),
        ({"url": "file:///not/there.dcm"}, IncompleteError, Reason.INCOMPLETE),
        ({"url": "ftp://host/file"}, UsageError, Reason.BAD_PARAMETER),
        ({"url": "file://otherhost/file"}, UsageError, Reason.BAD_PARAMETER),
        ({"sop_instance_uid": "../../etc/x"}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"sop_instance_uid": "1." * 40}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"url": "file:///dev/null"}, UnsafeInputError, Reason.UNSAFE_PATH),
    ],
)
@pytest.mark.parametrize("settings", [COPY, Settings()], ids=["copied", "in place"])
def test_one_bad_object_stops_the_series(
    tmp_path: Path,
    workspace: Workspace,
    change: dict[str, object],
    kind: type[CtenrichError],
    reason: Reason,
    settings: Settings,
) -> None:
    if settings is not COPY and reason is Reason.UNSAFE_IDENTIFIER:
        pytest.skip("a file read in place gets no name of ours; sort refuses the identifier")
    instances = list(listed(write_small(tmp_path / "in")))
    instances[3] = replace(instances[3], **change)  # type: ignore[arg-type]
    with pytest.raises(kind) as caught:
        fetch_series(folder_entry(instances=tuple(instances)), settings=settings, workspace=workspace)
    assert caught.value.reason is reason


@pytest.mark.parametrize("uid", ["../../x", "/etc", "", "1.2\n3", "1" * 65, "$(id)", "-rf", "1.2\0", "..", "１.２"])
def test_a_malicious_series_uid_makes_no_folder(tmp_path: Path, workspace: Workspace, uid: str) -> None:
    write_small(tmp_path / "in")
    with pytest.raises(UnsafeInputError) as caught:
        fetch_series(folder_entry(tmp_path / "in", series_instance_uid=uid), settings=COPY, workspace=workspace)
    assert caught.value.reason is Reason.UNSAFE_IDENTIFIER
    assert uid == "" or uid not in str(caught.value)
    assert not workspace.root.exists()


def test_fewer_than_the_index_counts_is_incomplete(tmp_path: Path, workspace: Workspace) -> None:
    entry = folder_entry(instances=listed(write_small(tmp_path / "in")), expected_instances=7)
    with pytest.raises(IncompleteError, match="1 of 7"):
        fetch_series(entry, settings=Settings(), workspace=workspace)


def test_an_empty_folder(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError) as caught:
        fetch_series(folder_entry(tmp_path / "in"), settings=Settings(), workspace=workspace)
    assert caught.value.reason is Reason.EMPTY_INPUT


def test_a_quota_is_kept_before_the_first_byte(tmp_path: Path, workspace: Workspace) -> None:
    entry = folder_entry(instances=listed(write_small(tmp_path / "in")))
    settings = Settings(fetch=FetchSettings(copy_local=True, disk_quota=1000))
    with pytest.raises(InputError) as caught:
        fetch_series(entry, settings=settings, workspace=workspace)
    assert caught.value.reason is Reason.DISK_FULL
    assert not workspace.root.exists()


def test_a_missing_companion_is_a_warning(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in")
    gone = Companion("RTSTRUCT", "1.9", Instance("1.9.1", "file:///not/there"), CompanionLink.REFERENCE)
    here = Companion("RTSTRUCT", "1.9", Instance("1.9.2", paths[0].as_uri()), CompanionLink.REFERENCE)
    entry = folder_entry(instances=listed(paths), companions=(gone, here))
    fetched = fetch_series(entry, settings=Settings(), workspace=workspace)
    assert [f.path for f in fetched.companions] == [str(paths[0])]
    (issue,) = fetched.issues
    assert (issue.rule, issue.object) == ("fetch.companion", "1.9.1")
    assert issue.message.startswith("the RTSTRUCT that belongs to the series could not be fetched: INCOMPLETE: ")


def test_a_companion_that_changed_since_the_crawl_is_a_warning_with_its_reason(
    tmp_path: Path, workspace: Workspace
) -> None:
    paths = write_small(tmp_path / "in")
    changed = Instance("1.9.1", paths[0].as_uri(), size=paths[0].stat().st_size + 1)
    entry = folder_entry(
        instances=listed(paths), companions=(Companion("SEG", "1.9", changed, CompanionLink.REFERENCE),)
    )
    fetched = fetch_series(entry, settings=Settings(), workspace=workspace)
    assert fetched.companions == ()
    assert [i.message.split(": ")[:2] for i in fetched.issues] == [
        ["the SEG that belongs to the series could not be fetched", "CHECKSUM"]
    ]


def test_what_is_whole_is_not_copied_again(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in")
    md5 = [hashlib.md5(p.read_bytes()).hexdigest() for p in paths]
    instances = tuple(replace(i, md5=m) for i, m in zip(listed(paths), md5, strict=True))
    entry = folder_entry(instances=instances)
    first = fetch_series(entry, settings=COPY, workspace=workspace)
    copies = [workspace.series_dir(SERIES) / f.path for f in first.files]
    copies[2].write_bytes(b"half")
    before = [c.stat().st_mtime_ns for c in copies]
    assert fetch_series(entry, settings=COPY, workspace=workspace) == first
    changed = [a != c.stat().st_mtime_ns for a, c in zip(before, copies, strict=True)]
    assert changed == [False, False, True, False, False, False]


class Told:
    """Keeps what a stage says of its pace."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def start(self, task: str, total: float | None = None) -> None: ...

    def advance(self, task: str, amount: float = 1) -> None: ...

    def note(self, message: str) -> None: ...

    def finish(self, task: str) -> None: ...

    def status(self, task: str, text: str) -> None:
        self.texts.append(text)


def test_progress_tells_files_speed_and_the_time_left(tmp_path: Path) -> None:
    told = Told()
    times = iter([0.0, 0.5, 2.0, 2.5, 8.0])
    transfers = [Transfer(f"gs://b/{n}", tmp_path / str(n)) for n in range(4)]
    meter = _TransferProgress(told, transfers, lambda: next(times))
    for transfer in transfers:
        transfer.path.write_bytes(bytes(4_000_000))
        meter.advance("fetch")
    assert told.texts == ["2 of 4 files, 4.0 MB/s, about 2 s left", "4 of 4 files, 2.0 MB/s, about 0 s left"]


def test_a_fetch_shows_its_pace(tmp_path: Path, workspace: Workspace) -> None:
    told = Told()
    entry = folder_entry(instances=listed(write_small(tmp_path / "in")))
    fetch_series(entry, settings=COPY, workspace=workspace, progress=told)
    assert told.texts[-1].startswith("6 of 6 files, ")
