"""Write tests/golden/bodypart.json with bpreg 1.1.0: what our clean-up, images and network must give.

    PYTHON scripts/make_bodypart_golden.py MODEL_FOLDER

PYTHON is that of bpreg's environment (scripts/install_bpreg.sh). MODEL_FOLDER gives the look-up table only; the inputs
are made from numbers (tests/support/bodypart_golden.py), so nothing of any patient or model ends up in the file.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

from bpreg_oracle import plain, repair  # noqa: E402
from tests.support.bodypart_golden import PARAMETERS, sample, score_lines, state, volumes  # noqa: E402


def lines(table: dict[str, Any]) -> dict[str, Any]:
    """What bpreg makes of the score lines."""
    from bpreg.inference.inference_model import VolumeStorage
    from bpreg.score_processing import Scores

    out = {}
    for name, (raw, spacing) in score_lines().items():
        document = VolumeStorage(Scores(raw, spacing, **PARAMETERS), table).json
        del document["look-up table"], document["settings"], document["unprocessed slice scores"], document["z"]
        document["cleaned slice scores"] = [round(v, 7) for v in document["cleaned slice scores"]]
        out[name] = document
    return out


def images(model: Any) -> dict[str, Any]:
    """What bpreg's preprocessing makes of the volumes, and its network of the images; axes [posterior, left]."""
    out = {}
    for name, (array, spacing) in volumes().items():
        order = (spacing[1], spacing[2], spacing[0])
        small = model.n2n.preprocess_npy(array.transpose(1, 2, 0).astype(np.float32), order).transpose(2, 0, 1)
        out[name] = {"images": sample(small), "raw": [round(float(v), 6) for v in model.predict_npy_array(small)]}
    return out


def main(folder: str) -> None:
    warnings.simplefilter("ignore")
    repair()
    from bpreg.inference.inference_model import InferenceModel

    model = InferenceModel(folder.rstrip("/") + "/", gpu=0)
    model.model.load_state_dict({key: torch.from_numpy(value) for key, value in state().items()}, strict=True)
    result = {"made with": "bpreg 1.1.0", "lines": lines(model.lookuptable), "images": images(model)}
    text = json.dumps(plain(result), indent=1, allow_nan=False)
    (ROOT / "tests" / "golden" / "bodypart.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
