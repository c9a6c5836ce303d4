"""Run lungmask and MONAI on small networks and store their answers below tests/golden.

    python -m scripts.make_networks_golden [lungmask|monai]      with the Python of an environment that has them

The weights and volumes are those of tests/support/network_cases.py; nothing is asked from the network.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT))


def _lungmask(folder: Path) -> None:
    """Answers of lungmask.LMInferer; only the width of its U-Net is another."""
    import lungmask.mask
    import SimpleITK
    import torch
    from lungmask.resunet import UNet
    from tests.support.network_cases import LUNGMASK_CASES, LUNGMASK_CLASSES, chest, lungmask_arrays, tensors
    from tests.support.totalsegmentator_cases import affine_ras

    def small_model(name: str, _path: object = None) -> torch.nn.Module:
        width = {"depth": 5, "wf": 1, "padding": True, "batch_norm": True, "up_mode": "upsample", "residual": False}
        model = UNet(n_classes=LUNGMASK_CLASSES[name], **width)
        model.load_state_dict(tensors(lungmask_arrays(name)))
        return model.eval()

    lungmask.mask.get_model = small_model
    for case in LUNGMASK_CASES:
        base, _, fill = case.task.partition("_")
        image = SimpleITK.GetImageFromArray(chest())
        affine = np.diag([-1, -1, 1, 1]) @ affine_ras(case.stack)
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing([float(size) for size in sizes])
        image.SetDirection((affine[:3, :3] / sizes).ravel().tolist())
        inferer = lungmask.mask.LMInferer(modelname=base, fillmodel=fill or None, force_cpu=True, tqdm_disable=True)
        _store(folder / f"{case.name}.npz", inferer.apply(image))


def _monai(folder: Path) -> None:
    """Answers of the transforms, network and inferer that MONAI makes from a bundle's configuration."""
    import nibabel
    import torch
    from monai.bundle import ConfigParser
    from tests.support.network_cases import MONAI_CASES, chest, write_bundle
    from tests.support.totalsegmentator_cases import affine_ras

    for case in MONAI_CASES:
        with tempfile.TemporaryDirectory() as temporary:
            bundle = write_bundle(Path(temporary) / "bundle", ranged=case.ranged, safe=False)
            source = Path(temporary) / "ct.nii.gz"
            nibabel.save(nibabel.Nifti1Image(chest().transpose(2, 1, 0), affine_ras(case.stack)), source)
            parser = ConfigParser()
            parser.read_config(bundle / "configs" / "inference.json")
            parser["displayable_configs#highres"] = not case.low
            parser["device"] = torch.device("cpu")
            parser["inferer#device"] = torch.device("cpu")
            del parser["postprocessing"]["transforms"][-1]  # the file that is saved
            network = parser.get_parsed_content("network_def").eval()
            weights = bundle / "models" / parser.get_parsed_content("modelname")
            network.load_state_dict(torch.load(weights, weights_only=True))
            data = parser.get_parsed_content("preprocessing")({"image": str(source)})
            with torch.inference_mode():
                data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
            labels = parser.get_parsed_content("postprocessing")(data)["pred"][0].numpy()
            _store(folder / f"{case.name}.npz", labels.transpose(2, 1, 0))


def _store(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, labels=labels.astype(np.uint8))
    values, counts = np.unique(labels, return_counts=True)
    print(path.parent.name, path.stem, dict(zip(values.tolist(), counts.tolist(), strict=True)), flush=True)


def main() -> None:
    """Make the golden label maps of the packages that are named, else of both."""
    makers = {"lungmask": _lungmask, "monai": _monai}
    for name in sys.argv[1:] or makers:
        makers[name](GOLDEN / name)


if __name__ == "__main__":
    main()
