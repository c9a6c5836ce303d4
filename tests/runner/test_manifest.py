"""Done means: the manifest has the key, and every file that it lists is there and whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.fake_stages import FakeStages, context_of

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
from ctenrich.stages.stage import Stage, StageContext


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
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run_stage(stages["first"], context, "key")
    manifest = next(n for n, name in enumerate(synced) if Path(name).name.startswith(".first.json."))
    assert {str(context.folder), str(context.folder.parent)} <= set(synced[:manifest])
    assert synced[-1] == str(context.folder / "manifests")
