"""Run bpreg 1.1.0 on volumes and print nothing but JSON: what our own scores are compared with.

    PYTHON scripts/bpreg_oracle.py MODEL_FOLDER OUT.json INPUT...

PYTHON is the one of the environment that scripts/install_bpreg.sh makes: bpreg cannot be installed beside today's
packages, and needs three small repairs to be imported, which are made here. An INPUT is a NIfTI file, read by bpreg
itself, or an .npz file with `array` [first image axis, second image axis, slice from feet to head] and `spacing` in
the same order, which goes through bpreg's way for arrays. OUT.json holds one entry an input: `raw` (network output),
`document` (what bpreg writes) and `seconds` of preprocessing (from the array in memory, or from the file) and network.
"""

from __future__ import annotations

import json
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def repair() -> None:
    """Give bpreg what it imports under names that are gone."""
    old = types.ModuleType("numpy.lib.arraysetops")
    old.isin = np.isin  # type: ignore[attr-defined]
    sys.modules["numpy.lib.arraysetops"] = old
    # A torchvision whose compiled part does not fit torch still has the network; it only wants two names to exist.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            continue
    globals()["_keep"] = library
    import albumentations

    if not hasattr(albumentations, "Flip"):
        albumentations.Flip = albumentations.HorizontalFlip


def score(model: Any, path: Path) -> dict[str, Any]:
    """Everything that bpreg says about one volume."""
    from bpreg.inference.inference_model import VolumeStorage

    if path.suffix == ".npz":
        with np.load(path) as data:
            array, spacing = data["array"].astype(np.float32), tuple(data["spacing"])
        began = time.perf_counter()
        images = model.n2n.preprocess_npy(array, spacing)
    else:
        began = time.perf_counter()
        images, spacing = model.n2n.preprocess_nifti(str(path))
    prepared = time.perf_counter()
    raw = model.predict_npy_array(np.transpose(images, (2, 0, 1)))
    ended = time.perf_counter()
    document = VolumeStorage(model.parse_scores(raw, spacing[2]), model.lookuptable).json
    seconds = {"prepare": prepared - began, "network": ended - prepared}
    return {"raw": [float(v) for v in raw], "document": document, "seconds": seconds}


def plain(value: Any) -> Any:
    """Numbers as JSON has them: NaN becomes null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value


def main(arguments: list[str]) -> None:
    folder, out, *inputs = arguments
    warnings.simplefilter("ignore")
    repair()
    from bpreg.inference.inference_model import InferenceModel

    model = InferenceModel(folder.rstrip("/") + "/", gpu=0)
    results = [score(model, Path(name)) for name in inputs]
    Path(out).write_text(json.dumps(plain(results)))


if __name__ == "__main__":
    main(sys.argv[1:])
