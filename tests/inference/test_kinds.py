"""The registry of kinds: describing them imports no heavy package."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ctenrich.errors import ModelError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.segmentation import class_names
from ctenrich.records import Product, SegmentMasks

HEAVY = ("torch", "nnunetv2", "SimpleITK", "highdicom", "radiomics")


def test_describing_all_kinds_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from ctenrich.inference.kinds import segmenter_kinds; "
        f"kinds = segmenter_kinds(); print(json.dumps([sorted(kinds), [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    kinds, loaded = json.loads(done.stdout)
    assert {"bodypart", "expert", "nnunet"} <= set(kinds)
    assert loaded == []


@pytest.mark.parametrize("key", ["expert", "nnunet", "totalsegmentator", "moose", "recipe"])
def test_stages_and_objects_of_products_of_version_0_1_0(key: str) -> None:
    """They are part of the manifests' keys and of the objects' UIDs."""
    kind = segmenter_kind(key)
    assert kind.stages == ("segment", "measure", "encode", "validate")
    assert kind.objects == ("seg", "shape_sr")
    assert kind.algorithm_type == ("MANUAL" if key == "expert" else "AUTOMATIC")
    assert kind.makes is SegmentMasks


@pytest.mark.parametrize(
    ("product", "title"),
    [
        (Product("expert"), "Manual_segmentations"),
        (Product("nnunet", "m", "3d_fullres", ("0",)), "3d_fullres-tta_nnU-Net"),
        (Product("nnunet", "m", "2d", ("0",), False), "2d_nnU-Net"),
        (Product("totalsegmentator", "total-fast"), "total-fast_TotalSegmentator"),
        (Product("recipe", "chest"), "chest_recipe"),
    ],
)
def test_the_series_title_of_a_product(product: Product, title: str) -> None:
    assert segmenter_kind(product.kind).series_title(product) == title


def test_a_class_without_a_code_is_refused_with_its_name() -> None:
    assert class_names({"aorta": 2, "lung left": 1}, "m", {"lung left": "lung_left"}) == (
        (1, "lung_left", "lung left"),
        (2, "aorta", "aorta"),
    )
    with pytest.raises(ModelError, match=r"UNMAPPED_LABEL.*'left thing' of m"):
        class_names({"heart": 1, "left thing": 2}, "m")
    with pytest.raises(ModelError, match=r"BAD_MAPPING.*two labels of m mean esophagus"):
        class_names({"esophagus": 1, "oesophagus": 2}, "m")
