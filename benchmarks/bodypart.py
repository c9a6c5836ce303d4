"""Body part regression compared with bpreg 1.1.0: the same volume, the same weights, one run; results must agree.

    python -m benchmarks.bodypart [--quick]

Needs the environment created by scripts/install_bpreg.sh. Prints seconds and ratios (bpreg's time over ours).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.support.bodypart_cases import affine, make_series, make_volume
from tests.support.bodypart_golden import state

from ctenrich.bodypart.bpreg_json import bodypart_document
from ctenrich.bodypart.images import ImageMaker, plan_images
from ctenrich.bodypart.scorer import CPU_BATCH, open_bodypart
from ctenrich.codes.mappings import load_landmarks
from ctenrich.records import Volume
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.tools import run_tool
from ctenrich.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
SPACING = (2.5, 0.9, 0.9)
SETTINGS = Settings(segment=SegmentSettings(device="cpu"))


def bpreg_python() -> Path | None:
    """Find a Python with bpreg; None if there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = Path(os.environ.get("CTENRICH_BPREG_PYTHON") or cache / "ctenrich-services" / "bpreg" / "bin" / "python")
    return python if python.is_file() else None


def chest(slices: int) -> NDArray[np.int16]:
    """A 512 x 512 volume with a body, lungs that change along it, and noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-256:256, -256:256] * SPACING[1]
    noise = rng.normal(0, 15, (8, 512, 512))
    out = np.empty((slices, 512, 512), np.int16)
    for k in range(slices):
        hu = np.full((512, 512), -1000.0)
        hu[(x / 170) ** 2 + (y / 110) ** 2 < 1] = 40
        width = 30 + 30 * np.sin(np.pi * k / slices)
        for side in (-75, 75):
            hu[((x - side) / width) ** 2 + (y / (width + 15)) ** 2 < 1] = -850
        hu[(x / 18) ** 2 + ((y - 75) / 18) ** 2 < 1] = 500
        out[k] = np.clip(hu + noise[k % 8], -1024, 3071)
    return out


def write_model(folder: Path) -> None:
    """The public model's size and format, with seeded weights."""
    folder.mkdir()
    torch.save({key: torch.from_numpy(value) for key, value in state().items()}, folder / "model.pt")
    marks = {name: (code.score_mean, code.score_sd) for name, code in load_landmarks().items()}
    table = {
        "original": {name: {"mean": mean / 25 - 2.4, "std": sd / 25} for name, (mean, sd) in marks.items()},
        "transformed": {name: {"mean": mean, "std": sd} for name, (mean, sd) in marks.items()},
    }
    settings = {
        "settings": {"start-landmark": "pelvis_start", "end-landmark": "eyes_end"},
        "lookuptable_train_val": table,
        "slope_mean": 0.118,
        "lower_quantile_tangential_slope": -0.037,
        "upper_quantile_tangential_slope": 0.25,
    }
    (folder / "inference-settings.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"alpha": 0, "lr": 0.0001}))


def prepare_only(array: NDArray[np.int16], volume: Volume) -> float:
    """Seconds of our preprocessing alone, in one thread; the better of two."""
    best = float("inf")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(2):
        began = time.perf_counter()
        maker = ImageMaker(array, plan_images(volume.shape, volume.affine_lps))
        for start in range(0, len(array), CPU_BATCH):
            maker.images(start, start + CPU_BATCH)
        best = min(best, time.perf_counter() - began)
    torch.set_num_threads(threads)
    return best


def main() -> int:
    """Run both, compare the results and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 slices instead of 200")
    slices = 40 if parser.parse_args().quick else 200
    python = bpreg_python()
    if python is None:
        print("bpreg is not installed (scripts/install_bpreg.sh): nothing to compare with")
        return 0
    os.environ["CTENRICH_BPREG_BASE"] = sysconfig.get_paths()["purelib"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        array = chest(slices)
        workspace = Workspace(folder / "run")
        volume = make_volume(workspace, array, affine(row=(1, 0, 0), column=(0, 1, 0), spacing=SPACING))
        series = make_series(slices, SPACING[0], matrix=(512, 512))
        np.savez(folder / "ct.npz", array=array.transpose(1, 2, 0), spacing=np.array([*SPACING[1:], SPACING[0]]))
        run_tool([python, ROOT / "scripts/bpreg_oracle.py", folder / "model", folder / "out.json", folder / "ct.npz"])
        theirs: dict[str, Any] = json.loads((folder / "out.json").read_text())[0]
        scorer = open_bodypart(str(folder / "model"), settings=SETTINGS)
        scorer.raw_scores(array[:8], make_volume(workspace, array[:8], volume.affine_lps))  # first call: set-up
        volume = make_volume(workspace, array, volume.affine_lps)
        began = time.perf_counter()
        scores = scorer.score(volume, series, settings=SETTINGS, workspace=workspace)
        whole = time.perf_counter() - began
        prepare = prepare_only(array, volume)
    apart = float(np.max(np.abs(np.array(scores.raw, float) - theirs["raw"])))
    same = bodypart_document(scores)["body part examined"] == theirs["document"]["body part examined"]
    peer_prepare, peer_network = theirs["seconds"]["prepare"], theirs["seconds"]["network"]
    print(f"{slices} slices of 512 x 512, {torch.get_num_threads()} threads")
    print(f"{'':24}{'bpreg':>10}{'ctenrich':>10}{'ratio':>8}")
    for title, peer, ours in (
        ("preprocessing, s", peer_prepare, prepare),
        ("series end to end, s", peer_prepare + peer_network, whole),
    ):
        print(f"{title:24}{peer:10.2f}{ours:10.2f}{peer / ours:7.1f}x")
    print(f"largest difference of a raw score: {apart:.1e}; region lists equal: {same}")
    return 0 if apart < 1e-3 and same else 1


if __name__ == "__main__":
    sys.exit(main())
