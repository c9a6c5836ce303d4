"""TotalSegmentator's tasks from a DICOM folder to a label map, beside the package itself with the same weights.

    python -m benchmarks.totalsegmentator --reference-python PATH [--weights FOLDER] [--task total:fast] [--series 10]
    python -m benchmarks.totalsegmentator --reference-python PATH --shape 600,512,512

PATH is the Python of an environment with TotalSegmentator 2.18, FOLDER holds its data sets; by default LUNG1-005 and
the small networks of CTENRICH_TEST_DATA are taken. With --shape a generated volume of that many slices, rows and
columns of 0.8 x 0.8 x 1 mm is given as NIfTI. Each side segments one series in a process of its own, and then several
in another, because both may keep what they have loaded. CPU seconds of all processes are counted; the forward passes
are measured on both sides, and the rest is what surrounds them.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPACING = (1.0, 0.8, 0.8)


def main() -> int:
    """Print the table; returns 1 if labels differ by more than half precision explains."""
    if len(sys.argv) > 1 and sys.argv[1] in {"_peer", "_ours"}:
        return child(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder of the data sets")
    parser.add_argument("--task", default="total:fast", help="TASK[:fast|fastest]")
    parser.add_argument("--series", type=int, default=10, help="series of the processes that segment several; 0: none")
    parser.add_argument("--shape", help="slices,rows,columns of a generated volume")
    parser.add_argument("--only", choices=["ours", "peer"], help="one side, where the other cannot")
    given = parser.parse_args()
    data = Path(os.environ.get("CTENRICH_TEST_DATA", "."))
    weights = given.weights or data / "models" / "totalsegmentator-small"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = _input(work, data, given.shape)
        request = {"source": str(source), "weights": str(weights.resolve()), "task": given.task, "work": str(work)}
        print(f"{given.task} on {source.name}, {os.cpu_count()} cores, no GPU", flush=True)
        sides = [given.only] if given.only else ["peer", "ours"]
        python = {"peer": str(given.reference_python.absolute()), "ours": sys.executable}
        if "ours" in sides:
            _run(sys.executable, "ours", request, 1)  # converts the weights, which later processes find
        one = {side: _run(python[side], side, request, 1) for side in sides}
        many = {side: _run(python[side], side, request, given.series) for side in sides if given.series > 1}
        _report(one, many, given.series)
        return _compare(work, sides)


def _input(work: Path, data: Path, shape: str | None) -> Path:
    """A DICOM folder, or a NIfTI file of a generated volume."""
    if shape is None:
        with tarfile.open(data / "data" / "LUNG1-005.tar.xz") as tar:
            tar.extractall(work / "dicom", filter="data")
        from benchmarks.inference import fetched

        folder = work / "LUNG1-005"  # the CT alone: the package reads every file of a folder
        folder.mkdir()
        for file in fetched(work / "dicom" / "LUNG1-005").files:
            (folder / Path(file.path).name).symlink_to(file.path)
        return folder
    import nibabel as nib
    import numpy as np

    z, y, x = (int(n) for n in shape.split(","))
    rng = np.random.default_rng(0)
    coarse = rng.normal(scale=300, size=(z // 20 + 2, y // 20 + 2, x // 20 + 2)).astype(np.float32)
    rows = (np.arange(n) // 20 for n in (z, y, x))
    volume = np.clip(coarse[np.ix_(*rows)] - 100, -1024, 2000).astype(np.int16)
    affine = np.diag([-SPACING[2], SPACING[1], SPACING[0], 1.0])
    nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0), affine), work / "ct.nii")
    return work / "ct.nii"


def _run(python: str, side: str, request: dict[str, Any], count: int) -> dict[str, float] | None:
    """One child process: what it measured, or None with its last line where it failed."""
    file = Path(request["work"]) / f"{side}.json"
    file.write_text(json.dumps(request | {"count": count}))
    script = ["-I", str(Path(__file__))] if side == "peer" else ["-m", "benchmarks.totalsegmentator"]
    environment = os.environ | {"CTENRICH_MODELS": str(Path(request["work"]) / "models")}
    start = time.perf_counter()
    done = subprocess.run(
        [python, *script, f"_{side}", str(file)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{side} failed with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"wall": time.perf_counter() - start}


def child(kind: str, request: dict[str, Any]) -> int:
    """Body of a child process; prints one line of JSON."""
    forward = [0.0]
    with contextlib.redirect_stdout(io.StringIO()):
        (_peer if kind == "_peer" else _ours)(request, forward)
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    peak = own.ru_maxrss / 1024
    print(json.dumps({"cpu": cpu, "forward": forward[0], "peak": peak, "peak_worker": others.ru_maxrss / 1024}))
    return 0


def _timed(owner: Any, name: str, total: list[float]) -> None:
    """Add the CPU seconds of a method, all threads, to a total."""
    plain = getattr(owner, name)

    def method(*args: Any, **more: Any) -> Any:
        start = time.process_time()
        try:
            return plain(*args, **more)
        finally:
            total[0] += time.process_time() - start

    setattr(owner, name, method)


def _count_apart(owner: Any, name: str, total: list[float]) -> None:
    """Take the CPU seconds of a method, in its own thread, off a total that includes them."""
    plain = getattr(owner, name)

    def method(*args: Any, **more: Any) -> Any:
        start = time.thread_time()
        try:
            return plain(*args, **more)
        finally:
            total[0] -= time.thread_time() - start

    setattr(owner, name, method)


def _peer(request: dict[str, Any], forward: list[float]) -> None:
    """TotalSegmentator's Python function, once per series, with its network access and its statistics off."""
    home = Path(request["work"]) / "home"
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps({"totalseg_id": "none", "send_usage_stats": False}))
    os.environ["TOTALSEG_HOME_DIR"] = str(home)
    os.environ["TOTALSEG_WEIGHTS_PATH"] = request["weights"]
    import requests

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("a benchmark uses no network")

    requests.get = requests.post = refuse
    import totalsegmentator.nnunet as runner
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from totalsegmentator.map_tasks_config import TASK_CONFIGS
    from totalsegmentator.python_api import totalsegmentator

    for task in TASK_CONFIGS.values():
        for mode in (task, *task.get("sub_modes", {}).values()):
            runner.custom_trainers[mode.get("trainer", "nnUNetTrainer")] = nnUNetTrainer
    _timed(nnUNetPredictor, "predict_logits_from_preprocessed_data", forward)
    task, _, mode = request["task"].partition(":")
    options = {
        "task": task,
        "ml": True,
        "device": "cpu",
        "quiet": True,
        "nr_thr_saving": 1,
        **({mode: True} if mode else {}),
    }
    for _ in range(request["count"]):
        totalsegmentator(request["source"], str(Path(request["work"]) / "peer.nii.gz"), **options)


def _ours(request: dict[str, Any], forward: list[float]) -> None:
    """The stages sort and convert (or the NIfTI file), then the resident segmenter, and its label map."""
    import numpy as np

    from ctenrich.nnunet.engine import Engine
    from ctenrich.nnunet.postprocess import SourceLabels
    from ctenrich.recipes.executor import run_recipe
    from ctenrich.recipes.networks import open_networks
    from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
    from ctenrich.settings import SegmentSettings

    _timed(Engine, "_ensemble_scores", forward)
    _timed(Engine, "_fill_labels", forward)
    _count_apart(SourceLabels, "set_block", forward)  # the peer makes labels after its passes
    task, _, mode = request["task"].partition(":")
    _, recipe = task_recipe(task, mode or None, TaskOptions())
    networks = open_networks(recipe, [Path(request["weights"])], SegmentSettings(device="cpu"))
    for n in range(request["count"]):
        array, affine = volume_of(Path(request["source"]), Path(request["work"]) / f"run{n}")
        answer = run_recipe(recipe, networks, array, affine)
        np.save(Path(request["work"]) / "affine.npy", affine)
        with gzip.open(Path(request["work"]) / "ours.npy.gz", "wb", compresslevel=1) as handle:  # as nibabel packs
            np.save(handle, answer.labels)


def volume_of(source: Path, run: Path) -> tuple[Any, Any]:
    """HU values [k, j, i] of a DICOM folder or a NIfTI file, and the affine in LPS; `run` holds what stages write."""
    import numpy as np

    if source.is_file():
        import nibabel as nib

        image = nib.load(source)
        array = np.asarray(image.dataobj).transpose(2, 1, 0)
        return array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    from benchmarks.inference import fetched
    from ctenrich.settings import ConvertSettings, Settings
    from ctenrich.stages.convert import convert_series
    from ctenrich.stages.sort import sort_series
    from ctenrich.workspace import Workspace, load_array

    workspace, settings = Workspace(run), Settings(convert=ConvertSettings(nifti=False))
    volume = convert_series(
        sort_series(fetched(source), settings=settings, workspace=workspace), settings=settings, workspace=workspace
    )
    return load_array(workspace.resolve(volume.series_instance_uid, volume.array_path)), np.array(volume.affine_lps)


def _report(one: dict[str, Any], many: dict[str, Any], count: int) -> None:
    """Print the table; a dash where a side failed or did not run."""
    rows = [("CPU seconds, one series", "cpu", one), ("  forward passes", "forward", one)]
    print(f"\n{'':44}{'peer':>9}{'ours':>9}{'ratio':>8}")
    for title, key, found in rows:
        _row(title, *(found[side][key] if found.get(side) else None for side in ("peer", "ours")))
    outside = [found["cpu"] - found["forward"] if (found := one.get(side)) else None for side in ("peer", "ours")]
    _row("  outside the forward passes", *outside)
    further = {
        key: [
            (many[side][key] - one[side][key]) / (count - 1) if one.get(side) and many.get(side) else None
            for side in ("peer", "ours")
        ]
        for key in ("cpu", "forward")
    }
    _row("a further series, CPU seconds", *further["cpu"])
    _row("  forward passes", *further["forward"])
    both = zip(further["cpu"], further["forward"], strict=True)
    _row("  outside the forward passes", *(cpu - own if cpu and own else None for cpu, own in both))
    if many:
        each = [many[side]["cpu"] / count if many.get(side) else None for side in ("peer", "ours")]
        _row(f"CPU seconds per series of {count}, one process", *each)
    _row(
        "peak memory of the process, MiB", *(one[side]["peak"] if one.get(side) else None for side in ("peer", "ours"))
    )
    worker = [one[side]["peak_worker"] if one.get(side) else None for side in ("peer", "ours")]
    _row("  of its largest worker, MiB", *worker)


def _row(title: str, peer: float | None, ours: float | None) -> None:
    ratio = f"{peer / ours:8.1f}" if peer and ours else ""
    shown = ("-" if value is None else f"{value:.1f}" for value in (peer, ours))
    print(f"{title:44}" + "".join(f"{text:>9}" for text in shown) + ratio)


def _compare(work: Path, sides: list[str]) -> int:
    """Count the voxels that differ; nnunetv2 adds up tiles in half precision."""
    if len(sides) < 2 or not (work / "peer.nii.gz").is_file() or not (work / "ours.npy.gz").is_file():
        return 0
    import nibabel as nib
    import numpy as np

    with gzip.open(work / "ours.npy.gz") as handle:
        labels = np.load(handle)
    theirs = nib.load(work / "peer.nii.gz")
    ours = labels_in(theirs, labels, np.load(work / "affine.npy"))
    different = int((ours != np.asarray(theirs.dataobj)).sum())
    size = int(np.prod(theirs.shape))
    print(f"\nlabels: {different} of {size} voxels differ (the peer adds up its tiles in half precision)")
    return 0 if different <= 1e-3 * size else 1


def labels_in(image: Any, labels: Any, affine: Any) -> Any:
    """Our labels [k, j, i] with an affine in LPS, as an array [x, y, z] on the axes of a NIfTI image."""
    import nibabel as nib
    import numpy as np

    ours = nib.Nifti1Image(labels.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(ours.affine), nib.io_orientation(image.affine))
    return np.asarray(ours.as_reoriented(turn).dataobj)


if __name__ == "__main__":
    sys.exit(main())
