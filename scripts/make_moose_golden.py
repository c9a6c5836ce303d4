"""Run MOOSE on small networks and store its answers below tests/golden/moose.

    python -m scripts.make_moose_golden      with the Python of an environment that has moosez

Nothing is asked from the network: requests are replaced by an error, and the weights are those of
tests/support/totalsegmentator_models.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "moose"
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Make the golden label maps of all cases, or of those that are named."""
    import requests
    from moosez import models, moosez, system
    from tests.support.moose_cases import CASES, FOLDERS, PATCH, SEEDS, TRAINER
    from tests.support.totalsegmentator_cases import affine_ras
    from tests.support.totalsegmentator_models import write_dataset

    def refuse(*args: object, **_: object) -> None:
        raise RuntimeError(f"the network was asked for {args[:1]}")

    requests.get = requests.post = refuse
    moosez.add_custom_trainers_to_local_nnunetv2 = lambda: None  # it writes into the folder of nnunetv2
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "models"
        for number, (model, (folder, labels, spacing, folds)) in enumerate(FOLDERS.items()):
            seed = SEEDS.get(model, number + 1)
            write_dataset(home / folder / TRAINER, labels, spacing, seed=seed, patch=PATCH, folds=folds)
            version = {"url": models.MODEL_METADATA[model]["url"]}
            (home / folder / "model_version.json").write_text(json.dumps(version))
        system.MODELS_DIRECTORY_PATH = str(home)
        models.Model.__init__.__defaults__ = (str(home),)
        for case in CASES:
            if sys.argv[1:] and case.name not in sys.argv[1:]:
                continue
            source = Path(temporary) / f"CT_{case.name}.nii.gz"
            image = nib.Nifti1Image(case.image.transpose(2, 1, 0).astype(np.float64), affine_ras(case.stack))
            nib.save(image, source)
            out = Path(temporary) / case.name
            out.mkdir()
            moosez.moose(str(source), case.model, str(out), "cpu")
            made = list(out.rglob("*.nii.gz"))
            answer = nib.load(made[0]) if made else nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine)
            turn = nib.orientations.ornt_transform(nib.io_orientation(answer.affine), nib.io_orientation(image.affine))
            labels_ = np.asarray(answer.as_reoriented(turn).dataobj).astype(np.uint8).transpose(2, 1, 0)
            np.savez_compressed(GOLDEN / f"{case.name}.npz", labels=labels_)
            print(case.name, np.unique(labels_).tolist(), labels_.shape, np.count_nonzero(labels_), flush=True)


if __name__ == "__main__":
    main()
