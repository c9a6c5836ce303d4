"""Run TotalSegmentator on small networks and store its answers below tests/golden/totalsegmentator.

    python -m scripts.make_totalsegmentator_golden      with the Python of an environment that has TotalSegmentator

Nothing is asked from the network: requests are replaced by an error, and the weights are those of
tests/support/totalsegmentator_models.py. Beside a CPU build of torch, torchvision has to be uninstalled.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "totalsegmentator"
sys.path.insert(0, str(ROOT))


def _offline(home: Path) -> None:
    home.mkdir()
    (home / "config.json").write_text(json.dumps({"send_usage_stats": False, "statistics_disclaimer_shown": True}))
    os.environ["TOTALSEG_HOME_DIR"] = str(home)
    os.environ["TOTALSEG_WEIGHTS_PATH"] = str(home / "weights")
    import requests

    def refuse(*args: object, **_: object) -> None:
        raise RuntimeError(f"the network was asked for {args[:1]}")

    requests.get = requests.post = refuse


def _trainers() -> None:
    """Give all trainers by name: nnunetv2's search imports packages that a CPU environment may lack."""
    import totalsegmentator.nnunet as runner
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from totalsegmentator.map_tasks_config import TASK_CONFIGS

    for task in TASK_CONFIGS.values():
        for mode in (task, *task.get("sub_modes", {}).values()):
            if "trainer" in mode:
                runner.custom_trainers[mode["trainer"]] = nnUNetTrainer


def _write_weights(folder: Path, tasks: set[str]) -> None:
    from tests.support.totalsegmentator_cases import PLAN_SPACINGS
    from tests.support.totalsegmentator_models import write_dataset
    from totalsegmentator.map_tasks_config import DEFAULT_CONFIG, TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS
    from totalsegmentator.map_to_binary import class_map, class_map_5_parts, class_map_parts_headneck_muscles

    parts = dict(zip((291, 292, 293, 294, 295), class_map_5_parts.values(), strict=False))
    parts |= dict(zip((778, 779), class_map_parts_headneck_muscles.values(), strict=True))
    for task in tasks:
        modes = TASK_CONFIGS[task].get("sub_modes", {"": TASK_CONFIGS[task]})
        for given in modes.values():
            mode = {**DEFAULT_CONFIG, **given}
            ids = mode["task_id"] if isinstance(mode["task_id"], list) else [mode["task_id"]]
            spacing = mode["resample"]
            for number in ids:
                auxiliary = class_map.get(f"{task}_auxiliary", {})
                labels = len(parts.get(number, class_map[task])) + len(auxiliary)
                target = PLAN_SPACINGS.get(number) or (spacing if isinstance(spacing, list) else [spacing] * 3)[::-1]
                name = f"{mode['trainer']}__nnUNetPlans__{mode['model']}"
                where = folder / TASK_ID_WEIGHTS_CONFIGS[number]["foldername"] / name
                write_dataset(where, labels, tuple(target), seed=number)


def main() -> None:
    """Make the golden label maps of all cases, or of those that are named."""
    from tests.support.totalsegmentator_cases import CASES, affine_ras, image

    names = sys.argv[1:]
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        _offline(home)
        from totalsegmentator.python_api import totalsegmentator

        _trainers()
        tasks = {case.task for case in CASES} | {"total", "body", "vertebrae_body"}
        _write_weights(home / "weights", tasks)
        array = image()
        print("image", hashlib.sha256(array.tobytes()).hexdigest())
        for case in CASES:
            if names and case.name not in names:
                continue
            source = Path(temporary) / "ct.nii.gz"  # a file: its affine has single precision
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine_ras(case.stack)), source)
            mode = {case.mode: True} if case.mode else {}
            out = Path(temporary) / "answer.nii.gz"  # without a file it segments the whole volume where a crop is empty
            answer = totalsegmentator(
                source, out, task=case.task, ml=True, device="cpu", quiet=True, nr_thr_saving=1, **mode, **case.options
            )
            labels = np.asarray(answer.dataobj).astype(np.uint8).transpose(2, 1, 0)
            np.savez_compressed(GOLDEN / f"{case.name}.npz", labels=labels)
            found = np.unique(labels)
            print(case.name, f"{len(found) - 1} labels, {np.count_nonzero(labels)} voxels", flush=True)


if __name__ == "__main__":
    main()
