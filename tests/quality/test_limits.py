"""Limits: the package's file is complete and in order; a file of one's own replaces numbers and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.codes.mappings import load_segments
from ctenrich.errors import UsageError
from ctenrich.quality.limits import OrganLimits, load_limits
from ctenrich.reasons import Reason


def test_every_organ_is_a_structure_and_every_range_rises() -> None:
    limits = load_limits()
    assert set(limits.organs) <= set(load_segments())
    for name, organ in limits.organs.items():
        for kind in ("volume_ml", "female", "male", "extent_mm", "hu", "foreign_hu", "scores"):
            found = getattr(organ, kind)
            assert found is None or found[0] < found[1], (name, kind)
    assert limits.organ("widget") == OrganLimits()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[ends]\nin_plane = 0.7\n[organs.heart]\nvolume_ml = [100, 900]\n[organs.widget]\nhu = [0, 1]\n")
    limits = load_limits(path)
    assert limits.number("ends", "in_plane") == 0.7
    assert limits.number("ends", "along_z") == load_limits().number("ends", "along_z")
    assert limits.organ("heart").volume_ml == (100, 900)
    assert limits.organ("heart").hu == load_limits().organ("heart").hu
    assert limits.organ("widget").hu == (0, 1)
    assert load_limits().number("ends", "in_plane") == 0.55


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ends]\nsideways = 1\n", "there is no limit ends.sideways"),
        ("[nothing]\na = 1\n", "there is no limit nothing.a"),
        ("ends = 4\n", "there is no limit ends"),
        ("[organs.heart]\nvolume = 4\n", "organs.heart: limits are"),
        ("[ends\n", "is not a TOML file"),
    ],
)
def test_wrong_files(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        load_limits(path)
    assert caught.value.reason is Reason.BAD_SETTINGS
    with pytest.raises(UsageError):
        load_limits(tmp_path / "none.toml")
