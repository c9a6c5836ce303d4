"""Done means: the manifest has the key, and every file that it lists is there and whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.fake_stages import FakeStages, context_of
from tests.support.flushed import record_flushes

from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.runner.manifest import (
    cache_failure,
    cached_failure,
    forget_failures,
    forget_stage,
    is_done,
    run_stage,
    stage_key,
)
from ctenrich.runner.manifest_files import manifest_paths
from ctenrich.stages.stage import Stage, StageContext
from ctenrich.workspace import DIVIDED_FORMAT


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    return context_of(tmp_path)


@pytest.fixture
def stage() -> Stage:
    return FakeStages().table()["first"]


@pytest.fixture
def key(stage: Stage, context: StageContext) -> str:
    key = stage_key(stage, context)
    run_stage(stage, context, key)
    return key


def test_a_stage_is_done_after_it_ran_and_only_for_its_key(stage: Stage, context: StageContext, key: str) -> None:
    assert is_done(stage, context, key)
    assert not is_done(stage, context, "another key")
    manifest = json.loads((context.folder / "manifests" / "first.json").read_text())
    assert (manifest["stage"], manifest["version"], manifest["key"]) == ("first", 1, key)
    assert list(manifest["files"]) == ["first.txt"]


def test_a_file_of_the_same_size_with_other_bytes_is_not_whole(stage: Stage, context: StageContext, key: str) -> None:
    path = context.folder / "first.txt"
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    assert not is_done(stage, context, key)


def test_a_file_that_was_copied_with_the_same_bytes_is_whole(stage: Stage, context: StageContext, key: str) -> None:
    path = context.folder / "first.txt"
    os.utime(path, ns=(0, 0))
    assert is_done(stage, context, key)


@pytest.mark.parametrize("damage", ["shorter", "missing", "a folder in its place"])
def test_a_damaged_file_is_noticed(stage: Stage, context: StageContext, key: str, damage: str) -> None:
    path = context.folder / "first.txt"
    if damage == "shorter":
        path.write_text("on")
    else:
        path.unlink()
        if damage != "missing":
            path.mkdir()
    assert not is_done(stage, context, key)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"key": 1}', '{"key": "K", "files": {"first.txt": []}}'])
def test_a_manifest_that_holds_something_else_means_not_done(
    stage: Stage, context: StageContext, key: str, content: str
) -> None:
    (context.folder / "manifests" / "first.json").write_text(content.replace("K", key))
    assert not is_done(stage, context, key)


def test_the_manifest_is_gone_while_the_stage_runs(context: StageContext, stage: Stage, key: str) -> None:
    failing = FakeStages(error=InputError(Reason.IO_ERROR, "broken")).table()["first"]
    with pytest.raises(InputError):
        run_stage(failing, context, key)
    assert not is_done(stage, context, key)


def test_forgotten_stages_run_again_and_their_files_stay(stage: Stage, context: StageContext, key: str) -> None:
    forget_stage(context.folder, "first")
    assert not is_done(stage, context, key)
    assert (context.folder / "first.txt").is_file()


def test_a_lasting_failure_is_cached_for_its_key_until_it_is_forgotten(context: StageContext, stage: Stage) -> None:
    error = InputError(Reason.NO_EXPERT, "no contours", "nothing to do")
    with pytest.raises(InputError):
        run_stage(FakeStages(error=error).table()["first"], context, "key")
    found = cached_failure(stage, context, "key")
    assert found is not None
    assert (found.reason, found.message, found.hint) == (Reason.NO_EXPERT, "no contours", "nothing to do")
    assert cached_failure(stage, context, "other key") is None
    forget_failures(context.folder)
    assert cached_failure(stage, context, "key") is None


def test_a_failure_that_may_go_away_is_not_cached(context: StageContext, stage: Stage) -> None:
    with pytest.raises(InputError):
        run_stage(FakeStages(error=InputError(Reason.IO_ERROR, "disk")).table()["first"], context, "key")
    assert cached_failure(stage, context, "key") is None


@pytest.mark.parametrize(("old", "new"), [("BOMB", Reason.DECOMPRESSION_BOMB), ("NO_EXPERT", Reason.NO_EXPERT)])
def test_failures_that_an_earlier_version_cached_are_read(
    context: StageContext, stage: Stage, old: str, new: Reason
) -> None:
    cache_failure(stage, context, "key", InputError(Reason.NO_EXPERT, "x"))
    path = context.folder / "manifests" / "first.failed.json"
    path.write_text(path.read_text().replace("NO_EXPERT", old))
    found = cached_failure(stage, context, "key")
    assert found is not None
    assert found.reason is new
    path.write_text(path.read_text().replace(old, "NONSENSE"))
    assert cached_failure(stage, context, "key") is None


def test_the_folders_that_a_manifest_relies_on_are_flushed_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, stages = context_of(tmp_path), FakeStages().table()
    synced = record_flushes(monkeypatch)
    run_stage(stages["first"], context, "key")
    manifest = next(n for n, name in enumerate(synced) if Path(name).name.startswith(".first.json."))
    assert {str(context.folder), str(context.folder.parent)} <= set(synced[:manifest])
    assert synced[-1] == str(context.folder / "manifests")


# ---------------------------------------------------------------- one file for all stages of a folder


@pytest.fixture
def joined(tmp_path: Path) -> StageContext:
    (tmp_path / "run.json").write_text(json.dumps({"format": DIVIDED_FORMAT}))
    return context_of(tmp_path)


def entries(context: StageContext) -> list[str]:
    return sorted(json.loads((context.folder / "manifests.json").read_bytes()))


def test_stages_of_a_divided_run_have_entries_of_one_file(joined: StageContext) -> None:
    stages = FakeStages().table()
    for name in ("first", "second"):
        run_stage(stages[name], joined, name)
    assert entries(joined) == ["first", "second"]
    assert all(is_done(stages[name], joined, name) for name in ("first", "second"))
    assert not is_done(stages["first"], joined, "second")
    (joined.folder / "first.txt").unlink()
    assert not is_done(stages["first"], joined, "first")
    assert not (joined.folder / "manifests").exists()


def test_an_entry_is_gone_while_its_stage_runs_and_the_others_stay(joined: StageContext) -> None:
    stages = FakeStages().table()
    for name in ("first", "second"):
        run_stage(stages[name], joined, name)
    with pytest.raises(InputError):
        run_stage(FakeStages(error=InputError(Reason.IO_ERROR, "broken")).table()["first"], joined, "first")
    assert entries(joined) == ["second"]
    assert is_done(stages["second"], joined, "second")
    forget_stage(joined.folder, "second")
    assert entries(joined) == []


def test_failures_in_one_file_are_cached_and_forgotten(joined: StageContext) -> None:
    stages = FakeStages().table()
    for name in ("first", "second"):
        run_stage(stages[name], joined, name)
    with pytest.raises(InputError):
        run_stage(FakeStages(error=InputError(Reason.NO_EXPERT, "none")).table()["first"], joined, "key")
    assert entries(joined) == ["first.failed", "second"]
    found = cached_failure(stages["first"], joined, "key")
    assert found is not None
    assert found.reason is Reason.NO_EXPERT
    assert cached_failure(stages["first"], joined, "other key") is None
    forget_failures(joined.folder)
    assert entries(joined) == ["second"]
    assert [(path.name, stage) for path, stage, _ in manifest_paths(joined.folder)] == [("manifests.json", "second")]


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"first": 1}', '{"first": {"key": "key", "files": 3}}'])
def test_a_damaged_file_means_that_no_stage_is_done(joined: StageContext, content: str) -> None:
    stage = FakeStages().table()["first"]
    run_stage(stage, joined, "key")
    (joined.folder / "manifests.json").write_text(content)
    assert not is_done(stage, joined, "key")
    assert cached_failure(stage, joined, "key") is None
    forget_failures(joined.folder)
    run_stage(stage, joined, "key")
    assert is_done(stage, joined, "key")


def test_the_folders_are_flushed_before_the_one_file(joined: StageContext, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = record_flushes(monkeypatch)
    run_stage(FakeStages().table()["first"], joined, "key")
    manifest = next(n for n, name in enumerate(synced) if Path(name).name.startswith(".manifests.json."))
    series = joined.workspace.series_dir(joined.uid)
    needed = {str(folder) for folder in (joined.folder, series, series.parent, series.parent.parent)}
    assert needed <= set(synced[:manifest])
    assert synced[-1] == str(joined.folder)
