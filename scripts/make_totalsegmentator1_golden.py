"""Run TotalSegmentator 1.5.6 on small networks and store its answers below tests/golden/totalsegmentator.

    python -m scripts.make_totalsegmentator1_golden      with the Python of an environment that has TotalSegmentator

Nothing is asked from the network: requests are replaced by an error, and the weights are those of
tests/support/totalsegmentator1_models.py. Tiles are added up in single precision, which nnU-Net does when its results
do not stay on the GPU: in half precision, its default here, some voxels depend on the order of the tiles.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "totalsegmentator"
sys.path.insert(0, str(ROOT))


def _offline(home: Path) -> None:
    """A home folder without statistics: version 1 writes to it, and knows no other place."""
    (home / ".totalsegmentator").mkdir(parents=True)
    settings = {"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0}
    (home / ".totalsegmentator" / "config.json").write_text(json.dumps(settings))
    os.environ["HOME"] = str(home)
    for name in ("TOTALSEG_WEIGHTS_PATH", "RESULTS_FOLDER", "nnUNet_raw_data_base", "nnUNet_preprocessed"):
        os.environ[name] = str(home / "results")
    import requests
    import torch

    def refuse(*args: object, **_: object) -> None:
        raise RuntimeError(f"the network was asked for {args[:1]}")

    requests.get = requests.post = refuse
    plain: Any = torch.load
    torch.load = lambda *args, **more: plain(*args, **{"weights_only": False, **more})


def _in_single_precision(predict: Any, *args: Any, **more: Any) -> Any:
    return predict(*args, **{**more, "overwrite_all_in_gpu": False})


def main() -> None:
    """Make the golden label maps of all cases, or of those that are named."""
    from tests.support.totalsegmentator1_models import write_v1_dataset
    from tests.support.totalsegmentator_cases import CASES_1, TASKS_1, affine_ras, image

    names = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        _offline(home)
        for folder, trainer, labels, spacing, number in TASKS_1:
            where = home / "results" / "nnUNet" / "3d_fullres" / folder / f"{trainer}__nnUNetPlansv2.1"
            write_v1_dataset(where, labels, spacing, seed=number)
        import totalsegmentator.nnunet as runner
        from totalsegmentator.python_api import totalsegmentator

        predict = runner.predict_from_folder
        runner.predict_from_folder = partial(_in_single_precision, predict)
        array = image()
        for case in CASES_1:
            if names and case.name not in names:
                continue
            source = Path(temporary) / "ct.nii.gz"
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine_ras(case.stack)), source)
            mode = {case.mode: True} if case.mode else {}
            out = Path(temporary) / "answer.nii.gz"
            answer = totalsegmentator(source, out, ml=True, quiet=True, nr_thr_saving=1, **mode, **case.options)
            labels_ = np.asarray(answer.dataobj).astype(np.uint8).transpose(2, 1, 0)
            np.savez_compressed(GOLDEN / f"{case.name}.npz", labels=labels_)
            print(case.name, f"{len(np.unique(labels_)) - 1} labels, {np.count_nonzero(labels_)} voxels", flush=True)


if __name__ == "__main__":
    main()
