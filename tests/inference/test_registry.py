"""Names to folders: what wins, what is refused, and licences that must be accepted once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctenrich.errors import ModelError
from ctenrich.inference import registry
from ctenrich.inference.registry import (
    ModelEntry,
    ModelKind,
    accept_licence,
    check_licence,
    check_name,
    models_home,
    resolve_model,
)
from ctenrich.reasons import Reason

LICENSED = ModelEntry(
    name="some-net", kind=ModelKind.NNUNET_V2, licence="CC-BY-NC-4.0", licence_url="https://example.org", accept=True
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def known(home: Path, monkeypatch: pytest.MonkeyPatch) -> ModelEntry:
    monkeypatch.setattr(registry, "registry", lambda: {LICENSED.name: LICENSED})
    return LICENSED


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("CTENRICH_MODELS", raising=False)
    assert models_home() == tmp_path / "xdg" / "ctenrich" / "models"
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "own"))
    assert models_home() == tmp_path / "own"


def test_every_entry_of_the_registry_is_usable() -> None:
    for name, entry in registry.registry().items():
        assert check_name(name) == name == entry.name
        assert entry.package or entry.url
        assert entry.licence, name
        assert not entry.url or entry.url.startswith("https://")
        assert not entry.accept or entry.licence_url


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a b", "-x", "x" * 101, "a:b", "é"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_name(name)
    assert caught.value.reason is Reason.BAD_MODEL


def test_an_imported_name_wins_over_a_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "imported" / "net").mkdir(parents=True)
    (tmp_path / "net").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("net").folder == home / "imported" / "net"
    assert resolve_model("./net").folder == tmp_path / "net"


def test_a_folder_gets_a_name_that_is_safe_in_paths(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "..my model (v2):é"
    folder.mkdir()
    found = resolve_model(str(folder))
    assert found.name == check_name(found.name)
    assert set(found.name) <= set("myodelv2_")
    assert found.entry is None
    assert not found.demo


def test_unknown_models_are_not_found(home: Path, tmp_path: Path) -> None:
    for name in ("no-such-model", str(tmp_path / "missing")):
        with pytest.raises(ModelError) as caught:
            resolve_model(name)
        assert caught.value.reason is Reason.NOT_FOUND
        assert "demo-organs" in caught.value.hint


def test_a_licence_is_accepted_once(known: ModelEntry, home: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model(known.name)
    assert caught.value.reason is Reason.NOT_FOUND
    (home / "imported" / known.name).mkdir(parents=True)
    with pytest.raises(ModelError, match="licensed CC-BY-NC") as caught:
        resolve_model(known.name)
    assert caught.value.reason is Reason.LICENCE_NOT_ACCEPTED
    assert "--accept-licence" in caught.value.hint
    accept_licence(known)
    assert resolve_model(known.name).entry == known


def test_another_licence_has_to_be_accepted_again(home: Path) -> None:
    accept_licence(LICENSED)
    other = ModelEntry(name=LICENSED.name, kind=LICENSED.kind, licence="another", accept=True)
    with pytest.raises(ModelError):
        check_licence(other)
    accept_licence(ModelEntry(name="second", kind=LICENSED.kind, licence="MIT", accept=True))
    check_licence(LICENSED)
    assert json.loads((home / "licences.json").read_text()) == {"second": "MIT", "some-net": "CC-BY-NC-4.0"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"some-net": 3}'])
def test_a_damaged_file_of_licences_accepts_nothing(home: Path, content: str) -> None:
    home.mkdir()
    (home / "licences.json").write_text(content)
    with pytest.raises(ModelError) as caught:
        check_licence(LICENSED)
    assert caught.value.reason is Reason.LICENCE_NOT_ACCEPTED
