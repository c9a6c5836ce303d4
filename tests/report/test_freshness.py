from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ctenrich.report import freshness
from ctenrich.report.freshness import FolderState, PageStates, series_states
from ctenrich.workspace import Workspace

UID = "1.2.3"


@pytest.fixture
def db() -> Iterator[Any]:
    with duckdb.connect() as connection:
        for name in freshness._TABLES:
            connection.execute(f"CREATE TABLE {name} (SeriesInstanceUID TEXT, value INTEGER)")
        connection.execute("INSERT INTO series VALUES (?, 1)", [UID])
        yield connection


def states(run: Workspace, db: Any, known: dict[str, FolderState]) -> tuple[str, dict[str, FolderState]]:
    found, folders = series_states(run, db, {}, known)
    return found[UID], folders


def test_folders_that_are_known_are_not_listed_again_and_no_change_is_missed(
    workspace: Workspace, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(workspace, db, {})[1] == {}, "a series without a folder"
    for name in ("expert", "nnunet-m"):
        (workspace.series_dir(UID) / name).mkdir(parents=True)
    first, known = states(workspace, db, {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", None)
        assert states(workspace, db, known) == (first, known)
        os.utime(workspace.series_dir(UID) / "expert", ns=(1, 1))
        second, known = states(workspace, db, known)
    (workspace.series_dir(UID) / "third").mkdir()
    third, known = states(workspace, db, known)
    assert known[UID][1] == ("expert", "nnunet-m", "third")
    db.execute("INSERT INTO issues VALUES (?, 2)", [UID])
    fourth, known = states(workspace, db, known)
    assert len({first, second, third, fourth}) == 4
    assert states(workspace, db, {}) == (fourth, known), "what is known changes no state"


def test_states_of_other_software_or_damaged_ones_are_forgotten(tmp_path: Path) -> None:
    path, folders = tmp_path / "pages.json", {UID: (5, ("expert",)), "1.2.4": (6, ("expert",))}
    PageStates(path, "a").save({UID: "x", "1.2.4": "y"}, folders)
    again = PageStates(path, "a")
    assert again.is_fresh(UID, "x")
    assert again.folders == folders
    assert not PageStates(path, "b").is_fresh(UID, "x")
    assert not PageStates(path, "b").folders
    path.write_text('{"software": "a", "pages": {"1.2.3": "x"}}')
    assert not PageStates(path, "a").is_fresh(UID, "x"), "written by an earlier version"
