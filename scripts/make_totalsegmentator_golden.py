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
    for name in ("TOTALSEG_WEIGHTS_PATH", "nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed"):
        os.environ[name] = str(home / "weights")
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


def _heart_chambers(source: Path, out: Path) -> nib.Nifti1Image:
    """The steps of heartchambers_highres by the package's own functions; the small weights need no key.

    The rough model of 3 mm, the crop around the heart with 20 mm, and what is outside the dilated mask removed.
    """
    from totalsegmentator.map_tasks_config import TASK_CONFIGS
    from totalsegmentator.map_to_binary import class_map
    from totalsegmentator.nnunet import nnUNet_predict_image

    task = TASK_CONFIGS["heartchambers_highres"]
    common = {"folds": [0], "quiet": True, "device": "cpu", "nr_threads_saving": 1, "multilabel_image": True}
    trainer = "nnUNetTrainer_4000epochs_NoMirroring"
    rough, _, _ = nnUNet_predict_image(source, None, 297, trainer=trainer, resample=3.0, crop_addon=None, **common)
    values = {name: value for value, name in class_map["total"].items()}
    labels = np.asarray(rough.dataobj)

    def mask(classes: list[str]) -> nib.Nifti1Image:
        return nib.Nifti1Image(np.isin(labels, [values[c] for c in classes]).astype(np.uint8), rough.affine)

    answer, _, _ = nnUNet_predict_image(
        source,
        out,
        301,
        trainer=task["trainer"],
        crop=mask(task["crop"]),
        crop_addon=[20, 20, 20],
        task_name="heartchambers_highres",
        remove_outside_mask=mask(task["remove_outside"]),
        remove_outside_dilation=task["remove_outside_dilation"],
        **common,
    )
    return answer


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
        from totalsegmentator import python_api
        from totalsegmentator.python_api import totalsegmentator

        python_api.convert_device_to_string = str  # it returns None for the CPU, with which teeth stops
        common = {"ml": True, "device": "cpu", "quiet": True, "nr_thr_saving": 1}
        _trainers()
        tasks = {case.task for case in CASES} | {"total", "body", "vertebrae_body", "craniofacial_structures"}
        _write_weights(home / "weights", tasks)
        print("image", hashlib.sha256(image().tobytes()).hexdigest())
        for case in CASES:
            if names and case.name not in names:
                continue
            source = Path(temporary) / "ct.nii.gz"  # a file: its affine has single precision
            nib.save(nib.Nifti1Image(case.image.transpose(2, 1, 0), affine_ras(case.stack)), source)
            mode = {case.mode: True} if case.mode else {}
            out = Path(temporary) / "answer.nii.gz"  # without a file it segments the whole volume where a crop is empty
            if case.task == "heartchambers_highres":
                answer = _heart_chambers(source, out)
            else:
                answer = totalsegmentator(source, out, task=case.task, **common, **mode, **case.options)
            labels = np.asarray(answer.dataobj).astype(np.uint8).transpose(2, 1, 0)
            np.savez_compressed(GOLDEN / f"{case.name}.npz", labels=labels)
            found = np.unique(labels)
            print(case.name, f"{len(found) - 1} labels, {np.count_nonzero(labels)} voxels", flush=True)


if __name__ == "__main__":
    main()
