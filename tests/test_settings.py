"""Settings: known names only, with their types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.cli.settings_text import sections, toml_template, toml_text
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


def test_every_setting_is_explained() -> None:
    for section in sections():
        assert section.text.endswith(".")
        for setting in section.settings:
            assert len(setting.text) > 4, f"{section.name}.{setting.name}"
            assert setting.text.endswith("."), f"{section.name}.{setting.name}"


def test_a_printed_file_gives_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        '[fetch]\ndisk_quota = 5\n[run]\ndevices = ["cuda:0", "cuda:1"]\n[contours]\nrois = ["PTV \\"x\\".*"]\n'
        "[geometry]\nspacing_relative = 0.123456789\n"
    )
    chosen = load_settings(path)
    for text in (toml_text(chosen), toml_text(chosen, changed_only=True)):
        path.write_text(text)
        assert load_settings(path) == chosen
    assert toml_text(Settings(), changed_only=True) == ""
    assert "spacing_relative = 0.123456789  # default: 0.01\n" in toml_text(chosen)


def test_the_template_changes_nothing_and_has_every_default(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(toml_template())
    assert load_settings(path) == Settings()
    lines = [re.sub(r"^# (\w+ = (?! ))", r"\1", line) for line in toml_template().splitlines()]
    path.write_text("\n".join(lines))
    assert load_settings(path) == Settings()
    values = [line for line in lines if re.match(r"\w+ = ", line)]
    unset = [line for line in lines if line.endswith("; not set)")]
    assert len(values) + len(unset) == sum(len(section.settings) for section in sections())
    assert "# disk_quota =  (whole number; not set)" in unset


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = CliRunner().invoke
    assert call(app, ["settings", "init"]).exit_code == 0
    assert call(app, ["settings", "init"]).exit_code == 2, "a file is never replaced"
    assert call(app, ["settings", "show", "settings.toml"]).output == toml_text(Settings())
    assert "every setting has its default" in call(app, ["settings", "show", "settings.toml", "--changed"]).output
    assert call(app, ["settings", "show", "none.toml"]).exit_code == 2
    assert call(app, ["settings", "show", str(tmp_path)]).exit_code == 2
