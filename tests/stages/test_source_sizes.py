"""The quota of fetched objects: exact in small runs, and not added up for every series of a large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.stages import source_sizes
from ctenrich.stages.source_sizes import fetched_bytes, fits_quota
from ctenrich.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "run")
    for number in (1, 2):
        add(made, f"1.2.{number}", 1000)
    return made


def add(workspace: Workspace, uid: str, size: int) -> Path:
    folder = workspace.series_dir(uid)
    (folder / "source").mkdir(parents=True, exist_ok=True)
    (folder / "source" / "a.dcm").write_bytes(bytes(size))
    return folder


def test_every_series_is_counted_but_the_own(workspace: Workspace) -> None:
    own = workspace.series_dir("1.2.1")
    assert fetched_bytes(own) == 1000
    assert fits_quota(500, 1500, own, workspace) == (True, 1000)
    assert fits_quota(501, 1500, own, workspace) == (False, 1000)
    add(workspace, "1.2.3", 1)
    assert fits_quota(500, 1500, own, workspace) == (False, 1001)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves; adding up takes a second."""
    now = [100.0]
    listed = Workspace.series_dirs

    def series_dirs(self: Workspace) -> object:
        now[0] += 1
        return listed(self)

    monkeypatch.setattr(Workspace, "series_dirs", series_dirs)
    monkeypatch.setattr(source_sizes.time, "monotonic", lambda: now[0])
    return now


def test_a_large_run_is_added_up_a_tenth_of_the_time(workspace: Workspace, slow: list[float]) -> None:
    own = workspace.series_dir("1.2.9")
    assert fits_quota(1, 5000, own, workspace) == (True, 2000)
    add(workspace, "1.2.3", 1000)
    assert fits_quota(1, 5000, own, workspace) == (True, 2000), "the sum of a moment ago"
    assert slow[0] == 101
    slow[0] += 10
    assert fits_quota(1, 5000, own, workspace) == (True, 3000)


def test_an_old_sum_refuses_nothing(workspace: Workspace, slow: list[float]) -> None:
    own = workspace.series_dir("1.2.9")
    assert fits_quota(1, 5000, own, workspace) == (True, 2000)
    (workspace.series_dir("1.2.1") / "source" / "a.dcm").unlink()
    assert fits_quota(4000, 5000, own, workspace) == (True, 1000)
    assert fits_quota(4001, 5000, own, workspace) == (False, 1000)
    assert slow[0] == 103
