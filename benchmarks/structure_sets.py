"""Structure sets of a run read by dcmrtstruct2nii, which runs in a Python of its own (it requires pydicom 2).

``python -m benchmarks.structure_sets RUN --peer-python VENV/bin/python``. Every ROI is drawn by dcmrtstruct2nii on the
images of its series and compared, voxel by voxel, with the mask of the run from which it was written.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PEER = """
import sys, warnings, logging
warnings.simplefilter("ignore")
from pathlib import Path
import numpy, SimpleITK
from dcmrtstruct2nii import dcmrtstruct2nii, list_rt_structs
structures, images, out = sys.argv[1:4]
for number, name in enumerate(list_rt_structs(structures)):
    folder = Path(out) / str(number)
    try:
        dcmrtstruct2nii(structures, images, str(folder) + "/", structures=[name], convert_original_dicom=False)
        (path,) = folder.glob("mask_*")
    except Exception as error:
        print(name, type(error).__name__, error, file=sys.stderr)
        continue
    numpy.save(Path(out) / (name + ".npy"), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0)
"""


def compare(run: Path, python: str, holes: str, scratch: Path) -> None:
    """Print voxels and Dice of every ROI."""
    from ctenrich import steps
    from ctenrich.encode.rtstruct import StructureSetOptions
    from ctenrich.masks import dice, full_mask
    from ctenrich.publish.structure_sets import export_structure_sets
    from ctenrich.records import SegmentMasks
    from ctenrich.series_store import SeriesStore

    opened = steps.open_run(run)  # with its mappings
    workspace = opened.workspace
    store = SeriesStore(workspace)
    options = StructureSetOptions(holes="xor" if holes == "xor" else "keyhole")
    written = export_structure_sets(workspace, scratch / "sets", settings=opened.config.settings, options=options)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for number, one in enumerate(written):
        if one.path is None:
            continue
        uid = one.series_instance_uid
        product = next(product for product in store.products(uid) if str(product) == one.product)
        masks = store.find(SegmentMasks, uid, product)
        assert masks is not None
        images, out = scratch / f"images{number}", scratch / f"out{number}"
        images.mkdir()
        out.mkdir()
        for place, image in enumerate(store.sorted_series(uid).slices):
            (images / f"{place}.dcm").symlink_to(workspace.resolve(uid, image.path).resolve())
        done = subprocess.run(
            [python, "-c", PEER, str(one.path), str(images), str(out)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"dcmrtstruct2nii failed: {done.stderr[-400:]}")
        for segment in masks.segments:
            path = out / f"{segment.name}.npy"
            if not path.is_file():
                print(f"{holes} {uid} {segment.name}: not read")
                continue
            ours, theirs = full_mask(masks, segment.number, workspace), np.load(path)
            differ = int(np.count_nonzero(ours != theirs))
            print(
                f"{holes} {uid} {segment.name}: {segment.voxels} voxels, {differ} differ, Dice {dice(ours, theirs):.4f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--peer-python", required=True, help="Python with dcmrtstruct2nii and pydicom 2.")
    parser.add_argument("--holes", choices=("keyhole", "xor"), default="keyhole")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(given.run, given.peer_python, given.holes, Path(scratch))


if __name__ == "__main__":
    main()
