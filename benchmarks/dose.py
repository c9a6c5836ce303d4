"""Doses of structures: CPU time beside dicompyler-core, which runs in a Python of its own (it requires pydicom 2).

``python -m benchmarks.dose --structures RS --dose RD --ct CT --peer-python VENV/bin/python``. dicompyler-core samples
the centres of the dose grid's voxels, or with ``--interpolate`` a finer grid; ours the voxels of the CT. CPU time of
one process each, reading the files included. Without ``--ct`` ours samples the planes of the contours, at the pixels of
``--interpolate``: both programs then have the same points in a plane and the same planes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PEER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from dicompylercore import dicomparser, dvhcalc
structures, dose, interpolate = sys.argv[1:4]
start, out = time.process_time(), {}
for number, roi in dicomparser.DicomParser(structures).GetStructures().items():
    if roi["empty"]:
        continue
    given = dict(interpolation_resolution=float(interpolate)) if float(interpolate) else {}
    try:
        found = dvhcalc.get_dvh(structures, dose, number, **given)
        out[roi["name"]] = [float(found.volume), float(found.mean)]
    except Exception as error:
        out[roi["name"]] = [type(error).__name__, str(error)[:80]]
print(json.dumps({"seconds": time.process_time() - start, "values": out}))
"""


def ours(structures: Path, dose: Path, ct: Path | None, pixel: float) -> tuple[float, dict[str, list[float | None]]]:
    """CPU seconds, and volume and mean of every structure."""
    from ctenrich.dose.files import DoseFiles, doses_of_files
    from ctenrich.dose.metrics import parse_metric
    from ctenrich.dose.structures import VOXEL_CENTRES, DoseOptions

    metrics = tuple(parse_metric(name) for name in ("volume", "mean", "max", "D95%", "D2cc", "V20Gy[%]"))
    options = DoseOptions(metrics=metrics, rule=VOXEL_CENTRES, bounds=False, second=False, pixel=pixel)
    start = time.process_time()
    found = doses_of_files(DoseFiles(structures=structures, doses=(dose,), images=ct), options)
    seconds = time.process_time() - start
    return seconds, {one.name: [value.value for value in one.values[:2]] for one in found.structures if not one.reason}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--dose", type=Path, required=True)
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--peer-python", help="Python with dicompyler-core; none: only ours.")
    parser.add_argument("--interpolate", type=float, default=0.0, help="mm of the peer's finer grid; 0: its default.")
    given = parser.parse_args()
    seconds, values = ours(given.structures, given.dose, given.ct, given.interpolate or 1.0)
    where = "voxels" if given.ct else f"pixels of {given.interpolate or 1.0:g} mm"
    print(f"ctenrich: {seconds:.2f} s of CPU for {len(values)} structures at the centres of {where}")
    if not given.peer_python:
        return
    command = [given.peer_python, "-c", PEER, str(given.structures), str(given.dose), str(given.interpolate)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"dicompyler-core failed: {done.stderr[-400:]}")
    peer = json.loads(done.stdout.splitlines()[-1])
    print(f"dicompyler-core: {peer['seconds']:.2f} s of CPU; ratio {peer['seconds'] / seconds:.1f}")
    for name, (volume, mean) in values.items():
        print(f"  {name}: {volume:.2f} cm3, {mean:.3f} Gy; dicompyler-core {peer['values'].get(name)}")


if __name__ == "__main__":
    main()
