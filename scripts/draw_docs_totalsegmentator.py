"""Draw docs/images/totalsegmentator.png: a generated chest CT segmented by ``totalsegmentator:total:fast``.

    python -m scripts.draw_docs_totalsegmentator [RUN]

RUN is a run with that product; without it a generated study is segmented first. The weights are those of the package's
demonstration network, written in TotalSegmentator's layout: its four classes get TotalSegmentator's numbers, and its
kernels are mirrored, because it was trained on LPS and the recipe feeds RAS. Needs matplotlib.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ctenrich.codes.mappings import find_segment
from ctenrich.records import SegmentMasks, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, load_array

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "totalsegmentator.png"
SPEC = "totalsegmentator:total:fast"


def write_weights(folder: Path) -> None:
    """The demonstration network as a data set of TotalSegmentator."""
    import torch

    from ctenrich.inference.registry import resolve_model
    from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe

    recipe = task_recipe("total", "fast", TaskOptions())[1]
    weights = recipe.parts[0].weights
    source = resolve_model("demo-organs").folder
    target = folder / weights.folder / weights.subfolder
    (target / "fold_0").mkdir(parents=True)
    dataset = json.loads((source / "dataset.json").read_text())
    numbers = {0: 0} | {value: recipe.labels[name] for name, value in dataset["labels"].items() if value}
    dataset["labels"] = {"background": 0} | dict(recipe.labels)
    (target / "dataset.json").write_text(json.dumps(dataset))
    (target / "plans.json").write_bytes((source / "plans.json").read_bytes())
    checkpoint = torch.load(source / "fold_0" / "checkpoint_final.pth", weights_only=True)
    state = checkpoint["network_weights"]
    for name, tensor in state.items():
        if "seg_layers" in name:
            wide = torch.full((len(recipe.labels) + 1, *tensor.shape[1:]), -1e4 if name.endswith("bias") else 0.0)
            for old, new in numbers.items():
                wide[new] = tensor[old]
            state[name] = wide
        elif tensor.ndim == 5:
            state[name] = tensor.flip(-1, -2).contiguous()
    torch.save(checkpoint, target / "fold_0" / "checkpoint_final.pth")


def make_run(folder: Path) -> Path:
    """Segment a generated study."""
    from ctenrich.cli.main import app
    from ctenrich.phantom import PhantomOptions, write_phantom_study

    write_phantom_study(folder / "ct", PhantomOptions(rows=128, columns=128, pixel_spacing=(3.0, 3.0)))
    write_weights(folder / "weights")
    os.environ["TOTALSEG_WEIGHTS_PATH"] = str(folder / "weights")
    app(["run", str(folder / "ct"), "--out", str(folder / "run"), "--segmenter", SPEC], standalone_mode=False)
    return folder / "run"


def draw(run: Path) -> None:
    """Draw the three planes through the middle of the volume."""
    workspace = Workspace(run)
    store = SeriesStore(workspace)
    uid = store.series()[0]
    [product] = store.products(uid)
    volume, masks = store.find(Volume, uid), store.find(SegmentMasks, uid, product)
    assert volume is not None
    assert masks is not None
    assert masks.label_map_path is not None
    image = load_array(workspace.resolve(uid, volume.array_path))
    labels = load_array(workspace.resolve(uid, masks.label_map_path))
    colours = np.zeros((256, 4))
    for segment in masks.segments:
        code = find_segment(segment.name)
        rgb = code.colour if code is not None else (136, 136, 136)
        colours[segment.number] = [*(value / 255 for value in rgb), 0.55]
    z, y, x = (n // 2 for n in image.shape)
    dz, dy, dx = volume.spacing
    planes = ((np.s_[z], dy / dx), (np.s_[::-1, y], dz / dx), (np.s_[::-1, :, x], dz / dy))
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), facecolor="black")
    for axis, (where, aspect) in zip(axes, planes, strict=True):
        axis.imshow(image[where], cmap="gray", vmin=-700, vmax=500, aspect=aspect)
        axis.imshow(colours[labels[where]], aspect=aspect, interpolation="nearest")
        axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(OUT, dpi=100, facecolor="black")


def main() -> None:
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(make_run(Path(folder)))


if __name__ == "__main__":
    main()
