"""Completion in the shell: names of queries, models, segmenters, runs and reasons."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from ctenrich.cli.main import app


def complete(*words: str) -> list[str]:
    """What the shell offers for the last word."""
    *before, incomplete = words
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[before.pop(0)]
    context = command.make_context("ctenrich", list(before), resilient_parsing=True)
    if before and before[-1].startswith("--"):
        (parameter,) = (p for p in command.params if before[-1] in p.opts)
    else:
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        parameter = arguments[len([word for word in before if not word.startswith("--")])]
    return [item.value for item in parameter.shell_complete(context, incomplete)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, another folder, and a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "models"))
    for name in ("my-run", "my-images", "other", "models/imported/my-chest"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "my-run" / "run.json").touch()
    (tmp_path / "mine.sql").touch()
    return tmp_path


def test_runs_come_before_other_folders(place: Path) -> None:
    assert complete("status", "my") == ["my-run"]
    assert complete("view", "oth") == ["other"]
    assert complete("retry", f"{place}/my") == [f"{place}/my-run"]
    assert complete("query", "no-such") == []


def test_queries(place: Path) -> None:
    assert {"segmentations", "lung_height"} <= set(complete("query", "my-run", ""))
    assert complete("query", "my-run", "lung_h") == ["lung_height"]
    assert complete("query", "my-run", "mi") == ["mine.sql"]
    assert "select_ct_series" in complete("select", "select_")


def test_models(place: Path) -> None:
    assert complete("models", "show", "my-") == ["my-chest"]
    assert complete("models", "verify", "demo-o") == ["demo-organs"]
    assert complete("run", "--bodypart", "demo") == ["demo-bodypart"]
    assert complete("run", "--bodypart", "no") == ["none"]


def test_segmenters(place: Path) -> None:
    assert complete("run", "--segmenter", "n") == ["nnunet:"]
    assert complete("plan", "--segmenter", "nnunet:my") == ["nnunet:my-chest"]
    assert complete("run", "--segmenter", "heart=nnunet:demo-o") == ["heart=nnunet:demo-organs"]
    assert "totalsegmentator:total" in complete("run", "--segmenter", "totalsegmentator:t")
    assert complete("run", "--segmenter", "expert:x") == []


def test_reasons() -> None:
    assert complete("retry", "--reason", "RETRY") == ["RETRY_EXHAUSTED"]
