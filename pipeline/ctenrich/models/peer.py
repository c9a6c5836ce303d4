"""Compare a segmenter with the package that its model comes from, run by the Python of an environment of its own."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ToolError, UsageError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import resolve_model
from ctenrich.masks import dice_of_counts, full_mask
from ctenrich.networks.bundle import bundle_folder, read_bundle
from ctenrich.networks.lungmask import TASKS, weights_file
from ctenrich.nnunet.plans import fail
from ctenrich.nnunet.source_folder import CHECKPOINTS
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.recipes.moose import moose_book
from ctenrich.recipes.recipe import Recipe
from ctenrich.recipes.totalsegmentator import DEFAULT_VERSION
from ctenrich.recipes.weights import find_all_weights, weights_folders
from ctenrich.records import Matrix4, SegmentMasks, SortedSeries, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.tools import run_tool
from ctenrich.workspace import Workspace, load_array, save_array

__all__ = ["ClassParity", "Peer", "PeerAnswer", "PeerReport", "check_with_peer", "label_by_peer", "peer_of"]

_SCRIPT = Path(__file__).with_name("peer_script.py")
_DICE = 0.999


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A package of others, and what it is asked for."""

    package: str
    """Key of `peer_script`: nnunetv2, TotalSegmentator, TotalSegmentator 1, moosez, lungmask or monai."""
    request: Mapping[str, Any]
    """Options of the package, as JSON values."""
    axes: str = ""
    """Axes of the NIfTI file that it is given, RAS, LAS or LPS; empty: those of the series."""


@dataclass(frozen=True, kw_only=True)
class PeerAnswer:
    """A peer's label map of one CT."""

    labels: NDArray[Any]
    """[k, j, i], on the grid of the CT."""
    version: str
    seconds: float
    """Of the whole call but for the start of its Python."""


@dataclass(frozen=True, kw_only=True)
class ClassParity:
    """Difference of two label maps for one class, over all series."""

    value: int
    organ: str
    ours: int
    """Voxels."""
    theirs: int
    different: int
    """Voxels that only one of the two assigns to this class."""
    common: int

    @property
    def dice(self) -> float:
        """Dice of the two; 1 if both are empty."""
        found = dice_of_counts(self.common, self.ours, self.theirs)
        return 1.0 if found is None else found


@dataclass(frozen=True, kw_only=True)
class PeerReport:
    """Comparison of a segmenter with its peer."""

    product: str
    package: str
    """Name and version."""
    rows: tuple[ClassParity, ...]
    different: Mapping[str, int]
    """Series -> voxels whose labels differ."""
    seconds: tuple[float, float]
    """Ours and theirs, over all series; ours without opening the model."""

    @property
    def passed(self) -> bool:
        """Whether every class has a Dice of at least 0.999."""
        return bool(self.rows) and all(row.dice >= _DICE for row in self.rows)

    def table(self) -> tuple[dict[str, str], ...]:
        """One row per class, as text."""
        return tuple(
            {
                "class": str(row.value),
                "organ": row.organ,
                "voxels": str(row.ours),
                "peer": str(row.theirs),
                "different": str(row.different),
                "Dice": f"{row.dice:.6f}",
            }
            for row in self.rows
        )


# ---------------------------------------------------------------- what a peer is asked


def peer_of(spec: SegmenterSpec, segmenter: Any, settings: Settings) -> Peer:
    """Return the peer of a segmenter, and what it has to be asked to do the same.

    Parameters
    ----------
    spec : SegmenterSpec
    segmenter : Segmenter
        Opened from `spec`.
    settings : Settings
        `segment`: device and step.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a kind without a peer, or for a subset of a task.
    """
    make = _PEERS.get(spec.kind)
    if make is None:
        known = ", ".join(sorted(_PEERS))
        raise UsageError(
            Reason.BAD_PARAMETER, f"segmenters of the kind {spec.kind} have no peer", f"kinds that have: {known}"
        )
    return make(spec, segmenter, settings)


def _nnunet_peer(spec: SegmenterSpec, segmenter: Any, settings: Settings) -> Peer:
    product = segmenter.product
    folder = _configuration_folder(resolve_model(spec.model).folder, product.configuration)
    checkpoint = next(
        (name for name in CHECKPOINTS if (folder / f"fold_{product.folds[0]}" / name).is_file()), CHECKPOINTS[0]
    )
    device = settings.segment.device
    request = {
        "model": str(folder),
        "folds": list(product.folds),
        "checkpoint": checkpoint,
        "mirror": product.mirror,
        "step": settings.segment.step_size if product.step is None else product.step,
        "device": "cpu" if device == "auto" else device,
    }
    return Peer(package="nnunetv2", request=request, axes=segmenter.axes)


def _configuration_folder(folder: Path, configuration: str) -> Path:
    found = sorted({p.parent for p in folder.rglob("plans.json")})
    if not found:
        fail(f"{folder.name} is no model of nnU-Net v2, which is what nnunetv2 runs")
    named = [p for p in found if p.name.endswith(f"__{configuration}")]
    if len(found) > 1 and len(named) != 1:
        fail(f"the folder of the configuration {configuration} cannot be told by its name", "give its own folder")
    return (named or found)[0]


def _totalsegmentator_peer(spec: SegmenterSpec, segmenter: Any, settings: Settings) -> Peer:
    if spec.options.get("roi"):
        message = "the classes of a subset are numbered anew, so the peer's answer has other numbers"
        raise UsageError(Reason.BAD_PARAMETER, message, "compare the whole task")
    version = spec.options.get("as") or DEFAULT_VERSION
    options: dict[str, Any] = {"task": spec.model, "device": "gpu" if "cuda" in settings.segment.device else "cpu"}
    if spec.configuration:
        options[spec.configuration] = True
    names = {"crop": "robust_crop", "split": "force_split", "small": "remove_small_blobs"}
    options |= {names[key]: value for key, value in spec.options.items() if key in names and value}
    weights = _places_of_weights(segmenter.recipe)
    if version == DEFAULT_VERSION:
        return Peer(package="TotalSegmentator", request={"options": options, "weights": weights})
    del options["device"]  # version 1 takes a GPU where there is one
    unknown = sorted(options.keys() - {"task", "fast", "force_split"})
    if unknown:
        message = f"TotalSegmentator {version} has no option {unknown[0]}"
        raise UsageError(Reason.BAD_PARAMETER, message, "compare without it")
    return Peer(package="TotalSegmentator 1", request={"options": options, "weights": weights})


def _places_of_weights(recipe: Recipe) -> dict[str, str]:
    """Place of each network below TotalSegmentator's folder of weights -> the folder on this machine that is used."""
    weights = {part.weights.name: part.weights for part in recipe.all_parts}
    found = find_all_weights(list(weights.values()), weights_folders(), recipe.name)
    out = {}
    for name, one in weights.items():
        plans = "plans.pkl" if one.version == 1 else "plans.json"
        folders = sorted({p.parent for p in found[name].folder.rglob(plans)})
        named = [folder for folder in folders if folder.name == one.subfolder] or folders
        above = "nnUNet/3d_fullres/" if one.version == 1 else ""
        out[f"{above}{one.folder}/{one.subfolder}"] = str(named[0])
    return out


def _moose_peer(spec: SegmenterSpec, _: Any, settings: Settings) -> Peer:
    recipe = moose_book().find(spec.model)
    found = find_all_weights([part.weights for part in recipe.all_parts], weights_folders(), spec.model)
    folders = {part.weights.name: part.weights.folder for part in recipe.all_parts}
    weights = {name: [folders[name], str(model.folder)] for name, model in found.items()}
    device = "cuda" if "cuda" in settings.segment.device else "cpu"
    return Peer(package="moosez", request={"model": spec.model, "weights": weights, "device": device})


def _lungmask_peer(spec: SegmenterSpec, _: Any, settings: Settings) -> Peer:
    files = [weights_file(name) for name in TASKS[spec.model]]
    _check_torch_files(files, "lungmask")
    request = {"models": spec.model.split("_"), "files": [str(file) for file in files]}
    return Peer(package="lungmask", request=request | {"cpu": "cuda" not in settings.segment.device})


def _monai_peer(spec: SegmenterSpec, _: Any, settings: Settings) -> Peer:
    folder = bundle_folder(resolve_model(spec.model).folder)
    if folder is None:
        fail(f"{spec.model} is not a MONAI bundle")
    _check_torch_files([read_bundle(folder, spec.configuration or "").weights], "MONAI")
    device = settings.segment.device
    request = {"bundle": str(folder), "resolution": spec.configuration or ""}
    return Peer(package="monai", request=request | {"device": "cpu" if device == "auto" else device})


def _check_torch_files(files: Sequence[Path], package: str) -> None:
    """Refuse weights in a format that a peer does not read."""
    for file in files:
        if file.suffix == ".safetensors":
            fail(f"{package} reads files of torch, {file.name} is another", "compare with the published file")


_PEERS: Mapping[str, Callable[[SegmenterSpec, Any, Settings], Peer]] = MappingProxyType(
    {"nnunet": _nnunet_peer, "totalsegmentator": _totalsegmentator_peer, "moose": _moose_peer}
    | {"lungmask": _lungmask_peer, "monai": _monai_peer}
)


# ---------------------------------------------------------------- asking it


def label_by_peer(
    python: Path, peer: Peer, array: NDArray[Any], affine_lps: Matrix4, *, timeout: float = 4 * 3600
) -> PeerAnswer:
    """Segment a CT with a peer's own package, in a process of the given Python.

    The CT is written as NIfTI by nibabel, in the peer's axes, and the answer is turned back by nibabel's orientations.

    Parameters
    ----------
    python : Path
        Interpreter of an environment that has the package.
    peer : Peer
    array : array, [k, j, i], HU
    affine_lps : 4x4
        (i, j, k, 1) -> mm, LPS.
    timeout : float
        Seconds.

    Returns
    -------
    PeerAnswer
        On the grid of `array`.

    Raises
    ------
    ToolError
        TOOL_MISSING if there is no such interpreter, TIMEOUT, TOOL_FAILED with the last line of its error, or if it
        gives no answer on this grid.
    """
    nibabel: Any = import_module("nibabel")  # takes long to import; it has few types
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine_lps, float)
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    own = nibabel.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt(tuple(peer.axes)) if peer.axes else own
    given = image.as_reoriented(nibabel.orientations.ornt_transform(own, wanted))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        nibabel.save(given, folder / "ct.nii.gz")
        request = {"package": peer.package, "image": str(folder / "ct.nii.gz"), "answer": str(folder / "answer.nii.gz")}
        request |= {"home": str(folder / "home"), **peer.request}
        (folder / "request.json").write_text(json.dumps(request))
        done = run_tool([python, "-I", _SCRIPT, folder / "request.json"], timeout=timeout, cwd=folder)
        try:
            stated = json.loads(done.stdout.strip().rpartition("\n")[2])
            labels = np.asarray(nibabel.load(folder / "answer.nii.gz").dataobj)
        except (ValueError, OSError) as error:
            raise ToolError(Reason.TOOL_FAILED, f"{peer.package} did not answer: {str(error)[:200]}") from error
    if labels.shape != given.shape:
        raise ToolError(Reason.TOOL_FAILED, f"{peer.package} answered on a grid of {labels.shape}, not {given.shape}")
    back = nibabel.orientations.ornt_transform(wanted, own)
    turned = nibabel.orientations.apply_orientation(labels, back).transpose(2, 1, 0)
    return PeerAnswer(labels=turned.astype(np.int32), version=stated["version"], seconds=float(stated["seconds"]))


def check_with_peer(
    spec: SegmenterSpec, python: Path, root: Path, *, settings: Settings, progress: Progress = SILENT
) -> PeerReport:
    """Run a segmenter and its peer on the CTs of a run, and compare their label maps (``--reference-python``).

    Parameters
    ----------
    spec : SegmenterSpec
    python : Path
        Interpreter of an environment that has the peer's package.
    root : Path
        The run's folder; nothing is written to it.
    settings : Settings
        `segment`.
    progress : Progress

    Returns
    -------
    PeerReport
        One row per class.

    Raises
    ------
    UsageError
        EMPTY_INPUT if the run has no converted CT; BAD_PARAMETER for a kind without a peer.
    ModelError
        What is wrong with the model.
    ToolError
        What went wrong in the peer's process.
    """
    segmenter = segmenter_kind(spec.kind).open(spec, settings)
    peer = peer_of(spec, segmenter, settings)
    counts: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    different: dict[str, int] = {}
    seconds, version = [0.0, 0.0], ""
    for name, volume, series, array in _volumes(root):
        progress.note(f"{name}: ctenrich")
        start = time.perf_counter()
        masks, ours = _own_labels(segmenter, volume, series, array, settings)
        seconds[0] += time.perf_counter() - start
        progress.note(f"{name}: {peer.package}")
        answer = label_by_peer(python, peer, array, volume.affine_lps)
        seconds[1] += answer.seconds
        version = answer.version
        different[name] = int((ours != answer.labels).sum())
        names |= {s.number: s.name for s in masks.segments}
        _add_counts(counts, ours, answer.labels)
    if not different:
        raise UsageError(Reason.EMPTY_INPUT, "the run has no converted CT", "run it first, or give another run")
    rows = []
    for value in sorted(names.keys() | counts.keys() - {0}):
        own, theirs, common = counts.get(value, [0, 0, 0])
        rows.append(
            ClassParity(
                value=value,
                organ=names.get(value, "not a class of ours"),
                ours=own,
                theirs=theirs,
                different=own + theirs - 2 * common,
                common=common,
            )
        )
    return PeerReport(
        product=str(segmenter.product),
        package=f"{peer.package.split()[0]} {version}",
        rows=tuple(rows),
        different=different,
        seconds=(seconds[0], seconds[1]),
    )


def _volumes(root: Path) -> Iterator[tuple[str, Volume, SortedSeries, NDArray[Any]]]:
    store = SeriesStore(Workspace(root))
    for number, uid in enumerate(store.series(), start=1):
        volume, series = store.find(Volume, uid), store.find(SortedSeries, uid)
        if volume is not None and series is not None:
            array = load_array(store.workspace.resolve(uid, volume.array_path))
            yield f"series {number}", volume, series, array


def _own_labels(
    segmenter: Any, volume: Volume, series: SortedSeries, array: NDArray[Any], settings: Settings
) -> tuple[SegmentMasks, NDArray[np.int32]]:
    """Our label map [k, j, i], made in a folder of its own."""
    uid = volume.series_instance_uid
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace(Path(place))
        path = workspace.series_dir(uid) / "volume" / "ct.npy"
        save_array(path, array)
        copied = replace(volume, array_path=workspace.relative(uid, path))
        masks: SegmentMasks = segmenter.segment({"CT": copied}, series, settings=settings, workspace=workspace)
        labels = np.zeros(volume.shape, np.int32)
        for segment in masks.segments:
            if not segment.absent:
                labels[full_mask(masks, segment.number, workspace)] = segment.number
    return masks, labels


def _add_counts(counts: dict[int, list[int]], ours: NDArray[np.int32], theirs: NDArray[np.int32]) -> None:
    """Add the voxels of each class, ours, theirs and common, to `counts`."""
    size = int(max(ours.max(), theirs.max())) + 1
    every = (ours, theirs, ours[ours == theirs])
    found = np.stack([np.bincount(labels.ravel(), minlength=size) for labels in every])
    for value in range(1, size):
        if found[:, value].any():
            known = counts.setdefault(value, [0, 0, 0])
            counts[value] = [a + int(b) for a, b in zip(known, found[:, value], strict=True)]
