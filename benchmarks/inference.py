"""nnU-Net from a DICOM folder to a label map on the CT's grid, compared with a usual script; labels must agree.

    python -m benchmarks.inference [--quick] [--series 10]

The peer is a usual script: a fresh process per series, dcm2niix with gzip, nnunetv2's preprocessing, predictor
(started by hand) and export. Ours is a fresh process for the first table, and one resident process for the second.
If CTENRICH_TEST_DATA names the folder with real data, LUNG1-005 and lung1-demo are used, otherwise a generated chest
and the demonstration model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SERIES = 10


def main() -> int:
    """Print the tables; returns 1 if labels differ by more than allowed."""
    if len(sys.argv) > 1 and sys.argv[1] in {"_peer", "_ours"}:
        return child(*sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run each, a cohort of two")
    parser.add_argument("--series", type=int, default=SERIES, help="series of the resident cohort")
    given = parser.parse_args()
    quick = given.quick
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["CTENRICH_MODELS"] = str(work / "models")
        dicom, model = inputs(work)
        print(f"{dicom.name}, {model}, {os.cpu_count()} cores, CPU", flush=True)
        run("_ours", dicom, model, work / "warm.npy", 1)
        peer = [run("_peer", dicom, model, work / "peer.npy", 1) for _ in range(1 if quick else 2)]
        one = [run("_ours", dicom, model, work / "ours.npy", 1) for _ in range(1 if quick else 2)]
        count = 2 if quick else given.series
        many = run("_ours", dicom, model, work / "many.npy", count)
        print(f"peer: {len(peer)} series, a fresh process each; per series it takes the same in a cohort of any size")
        best_peer, best = min(peer, key=lambda r: r["wall"]), min(one, key=lambda r: r["wall"])
        report(best_peer, best, many, count)
        different = differences(work)
        print(f"\nlabels: {different} voxels differ from the peer's (which gathers in half precision)")
        ablation(dicom, model, work)
    return 0 if different < 2000 else 1


def inputs(work: Path) -> tuple[Path, str]:
    """A folder of one CT series, and a model."""
    data = os.environ.get("CTENRICH_TEST_DATA")
    if data and (Path(data) / "data" / "LUNG1-005.tar.xz").is_file():
        with tarfile.open(Path(data) / "data" / "LUNG1-005.tar.xz") as tar:
            tar.extractall(work / "data", filter="data")
        return work / "data" / "LUNG1-005", str(Path(data) / "models" / "lung1-demo")
    from ctenrich.phantom import PhantomOptions, write_phantom_study

    write_phantom_study(work / "data" / "phantom", PhantomOptions())
    return work / "data" / "phantom", "demo-organs"


def run(kind: str, dicom: Path, model: str, out: Path, count: int) -> dict[str, Any]:
    """Run one child process: its own numbers, wall time including its start, peak memory."""
    from ctenrich.tools import run_tool

    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.inference", kind, str(dicom), model, str(out), str(count)]
    answer = run_tool(command, timeout=3600, cwd=ROOT)
    found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found | {"wall": time.perf_counter() - start}


def child(kind: str, dicom: str, model: str, out: str, count: str) -> int:
    """Body of a child process; prints one line of JSON."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        timings = (peer if kind == "_peer" else ours)(Path(dicom), model, Path(out), int(count))
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    timings["peak"] = own.ru_maxrss / 1024
    timings["cpu"] = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    print(json.dumps(timings))
    return 0


def peer(dicom: Path, model: str, out: Path, _: int) -> dict[str, float]:
    """dcm2niix -z y, nnunetv2's preprocessing and predictor, label map as NIfTI."""
    from ctenrich.inference.registry import resolve_model
    from ctenrich.nnunet.reference import ReferenceEngine
    from ctenrich.nnunet.store import load_weights, prepare
    from ctenrich.settings import SegmentSettings
    from ctenrich.tools import find_tool, run_tool

    start = time.perf_counter()
    folder = out.parent / "nifti"
    folder.mkdir(exist_ok=True)
    run_tool([find_tool("dcm2niix"), "-z", "y", "-b", "n", "-f", "ct", "-o", folder, dicom])
    file = max(folder.glob("ct*.nii.gz"), key=lambda p: p.stat().st_size)
    converted = time.perf_counter()
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    reader = SimpleITKIO()
    image, properties = reader.read_images([str(file)])
    stored = prepare(resolve_model(model))
    name = stored.configurations[0]
    weights = {fold: load_weights(stored, name, fold) for fold in stored.folds(name)}
    source = stored.meta["configurations"][name]
    engine = ReferenceEngine(stored.plan(name), source, weights, SegmentSettings(), mirror=True)
    answer = engine.label(image[0], tuple(properties["spacing"]))
    reader.write_seg(answer.labels, str(folder / "labels.nii.gz"), properties)
    np.save(out, answer.labels[:, ::-1])
    return {"convert": converted - start, **answer.timings}


def ours(dicom: Path, model: str, out: Path, count: int) -> dict[str, float]:
    """The stages' own reading, then the resident segmenter; means over `count` series."""
    from ctenrich.nnunet.conventions import Conventions
    from ctenrich.nnunet.segmenter import open_nnunet
    from ctenrich.settings import ConvertSettings, Settings
    from ctenrich.stages.convert import convert_series
    from ctenrich.stages.sort import sort_series
    from ctenrich.workspace import Workspace, load_array

    settings = Settings(convert=ConvertSettings(nifti=False))
    segmenter = open_nnunet(model, conventions=Conventions(axes="LAS"), settings=settings)
    total: dict[str, float] = {}
    begin = time.perf_counter()
    for n in range(count):
        start = time.perf_counter()
        workspace = Workspace(out.parent / f"run{n}")
        series = sort_series(fetched(dicom), settings=settings, workspace=workspace)
        volume = convert_series(series, settings=settings, workspace=workspace)
        array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
        converted = time.perf_counter()
        axes = segmenter.turned(volume.affine_lps)
        answer = segmenter.label(array, axes, volume.spacing)
        np.save(out, axes.back(answer.labels))
        for key, value in {"convert": converted - start, **answer.timings}.items():
            total[key] = total.get(key, 0.0) + value / count
    return total | {"each": (time.perf_counter() - begin) / count}


def fetched(dicom: Path) -> Any:
    """Describe the CT files of a folder as the fetch stage does."""
    from ctenrich.dicom.reader import open_dicom
    from ctenrich.dicom.values import text
    from ctenrich.records import FetchedFile, FetchedSeries

    tags = ("Modality", "StudyInstanceUID", "SeriesInstanceUID")
    chosen = {}
    for path in sorted(p for p in dicom.rglob("*") if p.is_file()):
        with open_dicom(path, tags=tags) as parsed:
            modality, study, series = (text(parsed.dataset, tag) for tag in tags)
        if modality == "CT":
            chosen[path] = study, series
    study, series = next(iter(chosen.values()))
    files = tuple(FetchedFile(str(p), p.as_uri(), p.stat().st_size, "") for p in chosen)
    return FetchedSeries(series, study, files)


def report(peer: dict[str, float], one: dict[str, float], many: dict[str, float], count: int) -> None:
    """Print the tables."""
    rows = [("DICOM to array", "convert"), ("preprocess", "preprocess"), ("network", "network"), ("export", "export")]
    print(f"\n{'step':32}{'peer s':>9}{'ours s':>9}{'ratio':>8}")
    for name, key in rows:
        print(f"{name:32}{peer[key]:9.2f}{one[key]:9.2f}{peer[key] / one[key]:8.1f}")
    outside = [sum(r[key] for key in ("convert", "preprocess", "export")) for r in (peer, one)]
    print(f"{'outside the forward passes':32}{outside[0]:9.2f}{outside[1]:9.2f}{outside[0] / outside[1]:8.1f}")
    walls = peer["wall"], one["wall"], many["each"]
    print(f"{'whole, a process for one series':32}{walls[0]:9.2f}{walls[1]:9.2f}{walls[0] / walls[1]:8.1f}")
    print(f"{f'per series, a cohort of {count}':32}{walls[0]:9.2f}{walls[2]:9.2f}{walls[0] / walls[2]:8.1f}")
    print(f"{'peak memory, MiB':32}{peer['peak']:9.0f}{one['peak']:9.0f}{peer['peak'] / one['peak']:8.1f}")
    cpus = peer["cpu"], one["cpu"], many["cpu"] / count
    print(f"{'CPU seconds, a process each':32}{cpus[0]:9.2f}{cpus[1]:9.2f}{cpus[0] / cpus[1]:8.1f}")
    print(f"{f'CPU seconds per series of {count}':32}{cpus[0]:9.2f}{cpus[2]:9.2f}{cpus[0] / cpus[2]:8.1f}")
    share = many["network"] / many["each"]
    print(f"share of the forward passes: peer {peer['network'] / peer['wall']:.0%}, ours {share:.0%} (resident)")


def differences(work: Path) -> int:
    """Count voxels whose labels differ from the peer's."""
    return int((np.load(work / "peer.npy") != np.load(work / "ours.npy")).sum())


def ablation(dicom: Path, model: str, work: Path) -> None:
    """Measure each exact acceleration of the forward passes by switching it off on its own, in one process."""
    from torch.nn import functional as nnf

    from ctenrich.nnunet import sliding_window, unet
    from ctenrich.nnunet.conventions import Conventions
    from ctenrich.nnunet.preprocess import canonical_axes
    from ctenrich.nnunet.segmenter import open_nnunet
    from ctenrich.settings import ConvertSettings, Settings
    from ctenrich.stages.convert import convert_series
    from ctenrich.stages.sort import sort_series
    from ctenrich.workspace import Workspace, load_array

    settings = Settings(convert=ConvertSettings(nifti=False))
    workspace = Workspace(work / "ablation")
    series = sort_series(fetched(dicom), settings=settings, workspace=workspace)
    volume = convert_series(series, settings=settings, workspace=workspace)
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    axes = canonical_axes(volume.affine_lps, "LAS")
    wanted = np.load(work / "ours.npy")
    quick = unet._operations

    def plain_convolution(plan: Any, x: Any) -> Any:
        conv: Any = nnf.conv3d if plan.dims == 3 else nnf.conv2d
        return conv, quick(plan, x)[1]

    def plain_norm(plan: Any, x: Any) -> Any:
        return quick(plan, x)[0], lambda x, w, b: nnf.instance_norm(x, weight=w, bias=b, eps=plan.norm_eps)

    def measure(batch: int = 0) -> tuple[float, int]:
        chosen = replace(settings, segment=replace(settings.segment, batch_size=batch))
        segmenter = open_nnunet(model, conventions=Conventions(axes="LAS"), settings=chosen)
        answer = segmenter.label(array, axes, volume.spacing)
        return answer.timings["network"], int((axes.back(answer.labels) != wanted).sum())

    cases: list[tuple[str, tuple[float, int]]] = [("all accelerations", measure())]
    unet._operations = plain_convolution
    cases.append(("without oneDNN asked for by name", measure()))
    unet._operations = plain_norm
    cases.append(("without group normalisation", measure()))
    unet._operations = quick
    voxels, sliding_window._CPU_VOXELS = sliding_window._CPU_VOXELS, 0
    cases.append(("passes one by one, all threads each", measure()))
    sliding_window._CPU_VOXELS = voxels
    cases.append(("four passes in one batch", measure(4)))
    print(f"\n{'forward passes':40}{'s':>8}{'of all':>9}{'other voxels':>14}")
    for name, (seconds, other) in cases:
        print(f"{name:40}{seconds:8.2f}{seconds / cases[0][1][0]:9.2f}{other:14d}")
    print("GPU: not measured (none at hand)")


if __name__ == "__main__":
    sys.exit(main())
