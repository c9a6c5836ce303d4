"""What may be typed after --segmenter."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.inference.products import SegmenterSpec, parse_segmenter
from ctenrich.records import ProductKind


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("expert", SegmenterSpec(ProductKind.EXPERT)),
        ("nnunet:m", SegmenterSpec(ProductKind.NNUNET, "m")),
        ("nnunet:m:3d_fullres", SegmenterSpec(ProductKind.NNUNET, "m", "3d_fullres")),
        ("nnunet:m:folds=0,1", SegmenterSpec(ProductKind.NNUNET, "m", None, ("0", "1"))),
        ("nnunet:m:2d:folds=all:mirror=off", SegmenterSpec(ProductKind.NNUNET, "m", "2d", ("all",), mirror=False)),
    ],
)
def test_specs_are_read(text: str, spec: SegmenterSpec) -> None:
    assert parse_segmenter(text) == spec


@pytest.mark.parametrize(
    "text", ["", "expert:x", "nnunet", "nnunet:", "unet:m", "nnunet:m:mirror=maybe", "nnunet:m:a:b"]
)
def test_anything_else_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"nnunet:MODEL\[:CONFIGURATION\]"):
        parse_segmenter(text)


def test_a_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_segmenter("nnunet:model").model == str(tmp_path / "model")
