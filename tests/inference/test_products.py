"""What may be typed after --segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctenrich.errors import UsageError
from ctenrich.inference.products import SegmenterSpec, parse_segmenter

DEFAULTS = {"folds": None, "mirror": True, "axes": "", "step": None, "largest": False}


@pytest.mark.parametrize(
    ("text", "configuration", "options"),
    [
        ("nnunet:m", None, {}),
        ("nnunet:m:3d_fullres", "3d_fullres", {}),
        ("nnunet:m:folds=0,1", None, {"folds": ("0", "1")}),
        ("nnunet:m:2d:folds=all:mirror=off", "2d", {"folds": ("all",), "mirror": False}),
        ("nnunet:m:axes=RAS:step=0.8", None, {"axes": "RAS", "step": 0.8}),
        ("nnunet:m:axes=las", None, {"axes": "LAS"}),
        ("nnunet:m:largest=on", None, {"largest": True}),
    ],
)
def test_specifications_are_parsed(text: str, configuration: str | None, options: dict[str, Any]) -> None:
    expected = SegmenterSpec(kind="nnunet", model="m", configuration=configuration, options=DEFAULTS | options)
    assert parse_segmenter(text) == expected


def test_expert_has_neither_model_nor_options() -> None:
    assert parse_segmenter(" expert ") == SegmenterSpec(kind="expert")


@pytest.mark.parametrize(
    "text",
    [
        *("", "expert:x", "nnunet", "nnunet:", "unet:m", "bodypart:m"),
        *("nnunet:m:mirror=maybe", "nnunet:m:fold=0", "nnunet:m:a:b"),
        *("nnunet:m:axes=RPS", "nnunet:m:axes=", "nnunet:m:step=0", "nnunet:m:step=1.5", "nnunet:m:step=nan"),
    ],
)
def test_anything_else_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"nnunet:MODEL\[:CONFIGURATION\]"):
        parse_segmenter(text)


def test_a_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_segmenter("nnunet:model").model == str(tmp_path / "model")
