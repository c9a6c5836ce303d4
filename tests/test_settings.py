"""Settings: known names only, with their types."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.settings import Settings, load_settings


def test_no_file_means_the_defaults() -> None:
    assert load_settings(None) == Settings()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('[geometry]\ndrift = 0.2\n[segment]\ndevice = "cpu"\n')
    settings = load_settings(path)
    assert (settings.geometry.drift, settings.segment.device) == (0.2, "cpu")
    assert settings.geometry.cosines == Settings().geometry.cosines


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[geometry]\ndrif = 1", "geometry.drif"),
        ("[geo]\n", "section geo"),
        ('[geometry]\ndrift = "x"', "geometry.drift"),
        ("geometry = 3", "section geometry"),
        ("[geometry", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        load_settings(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no settings file"):
        load_settings(tmp_path / "none.toml")
