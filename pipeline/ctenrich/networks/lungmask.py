"""The kind ``lungmask``: lungs and lobes by lungmask's 2D networks, with lungmask's own answer.

`open_lungmask` also serves callers that need an independent segmentation of the lungs, e.g. quality control.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.tasks import task_classes
from ctenrich.errors import UnknownModelError, UsageError, did_you_mean
from ctenrich.inference.device import check_precision, choose_device
from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.kinds import ModelFiles
from ctenrich.inference.process import prepare_process
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import ModelKind, ResolvedModel, registry, resolve_model
from ctenrich.inference.segmentation import Classes, CtAnswer, class_names, class_rows, segment_ct, segmentation_kind
from ctenrich.inference.threads import in_order
from ctenrich.networks.lungmask_rules import clean_labels, fuse, resize_labels, resize_slice
from ctenrich.networks.lungmask_unet import IGNORED, check_unet, class_count, forward
from ctenrich.networks.weights import Tensors, bad_model, check_settings, read_tensors, tensors_sha256
from ctenrich.nnunet.preprocess import canonical_axes
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4, ModelInfo, Product, SegmentMasks, SortedSeries, Volume
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

if TYPE_CHECKING:
    import torch

__all__ = ["LUNGMASK", "TASKS", "LungmaskSegmenter", "open_lungmask", "weights_file"]

TASKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "R231": ("lungmask-R231",),
        "R231CovidWeb": ("lungmask-R231CovidWeb",),
        "LTRCLobes": ("lungmask-LTRCLobes",),
        "LTRCLobes_R231": ("lungmask-LTRCLobes", "lungmask-R231"),
    }
)
"""Task -> its models of the registry; the second one fills the answer of the first."""

SUFFIXES = (".pth", ".pt", ".safetensors")
_VERSION = "0.2.20"
"""Version of lungmask whose answer this is."""
_BATCH = 4
"""Slices of one forward pass on a CPU."""
_GPU_BATCH = 20


# ---------------------------------------------------------------- weights


def _torch_hub() -> Path:
    """Folder into which lungmask itself downloads its weights."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub" / "checkpoints"


def weights_file(name: str) -> Path:
    """Return the file of a model of the registry: as imported, or as lungmask downloaded it.

    Raises
    ------
    UnknownModelError
        NOT_FOUND if it is not on this machine.
    ModelError
        BAD_MODEL or HASH_MISMATCH.
    """
    published = registry()[name].url.rpartition("/")[2]
    try:
        folder = resolve_model(name).folder
    except UnknownModelError:
        downloaded = _torch_hub() / published
        if downloaded.is_file():
            return downloaded
        hint = f"run: ctenrich models pull {name}, or: ctenrich models import {published}"
        raise UnknownModelError(Reason.NOT_FOUND, f"the model {name} is not on this machine yet", hint) from None
    path = weights_in(folder)
    check_imported_files(folder)
    return path


def weights_in(folder: Path) -> Path:
    """Return the one file of weights in a folder.

    Raises
    ------
    ModelError
        BAD_MODEL if there is none, or more than one.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(found) != 1:
        bad_model(f"{folder.name} holds {len(found)} files of weights, not one", f"known: {', '.join(SUFFIXES)}")
    return found[0]


def _read_network(name: str, path: Path, classes: int) -> Tensors:
    tensors = read_tensors(path, name)
    check_unet(tensors, name)
    found = class_count(tensors, name) - 1
    if found != classes:
        bad_model(f"the weights {path.name} have {found} classes, {name} has {classes}", "they are of another model")
    return {key: tensor.float() for key, tensor in tensors.items() if not any(part in key for part in IGNORED)}


def _task_of(name: str) -> str:
    """Label table of a model of the registry: ``lungmask:R231`` of ``lungmask-R231``."""
    return name.replace("-", ":", 1)


def _describe(model: ResolvedModel) -> dict[str, Any]:
    classes = task_classes(_task_of(model.name))
    path = weights_in(model.folder)
    check_imported_files(model.folder)
    tensors = _read_network(model.name, path, len(classes))
    return {
        "segmenter": _task_of(model.name),
        "axes": "LPS",
        "labels": {item.class_name: item.label for item in classes},
        "classes": class_rows(tuple((item.label, item.segment, item.class_name) for item in classes)),
        "weights_sha256": tensors_sha256([tensors], ""),
    }


def open_lungmask(task: str, *, settings: SegmentSettings) -> LungmaskSegmenter:
    """Load the networks of a task; every fault of the weights is found here, before any series is touched.

    Parameters
    ----------
    task : str
        ``R231``, ``R231CovidWeb``, ``LTRCLobes`` or ``LTRCLobes_R231`` (lobes, filled from the lungs of R231).
    settings : SegmentSettings
        Device, precision, threads.

    Returns
    -------
    LungmaskSegmenter

    Raises
    ------
    ModelError
        NOT_FOUND, BAD_MODEL, UNSAFE_WEIGHTS or HASH_MISMATCH.
    UsageError
        BAD_PARAMETER for an unknown task, BAD_SETTINGS.
    """
    _check_task_name(task)
    check_settings(settings, "lungmask")
    prepare_process()
    models = TASKS[task]
    classes = class_names(
        {item.class_name: item.label for item in task_classes(f"lungmask:{task}")},
        task,
        {item.class_name: item.segment for item in task_classes(f"lungmask:{task}")},
    )
    networks = [_read_network(name, weights_file(name), len(task_classes(_task_of(name)))) for name in models]
    entries = [registry()[name] for name in models]
    info = ModelInfo(
        name=f"lungmask {task}",
        version=_VERSION,
        sha256=tensors_sha256(networks, f"lungmask {_VERSION} {task}"),
        licence=", ".join(dict.fromkeys(entry.licence for entry in entries)),
        citation=entries[0].citation,
        source_url=entries[0].source,
    )
    device = choose_device(settings.device)
    placed = tuple({key: tensor.to(device) for key, tensor in tensors.items()} for tensors in networks)
    return LungmaskSegmenter(
        product=Product("lungmask", task),
        info=info,
        names=classes,
        networks=placed,
        device=device,
        precision=check_precision(settings.precision),
        threads=settings.threads,
    )


def _check_task_name(task: str) -> None:
    if task not in TASKS:
        known = ", ".join(TASKS)
        hint = did_you_mean(task, TASKS, f"known: {known}")
        raise UsageError(Reason.BAD_PARAMETER, f"lungmask has no model {task!r}", hint)


# ---------------------------------------------------------------- segmenter


@dataclass(frozen=True, kw_only=True)
class LungmaskSegmenter:
    """Loaded networks of lungmask; implements `ctenrich.inference.segmenter.Segmenter`."""

    product: Product
    info: ModelInfo
    names: Classes
    networks: tuple[Tensors, ...]
    device: torch.device
    precision: str = "fp32"
    threads: int = 0

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Segment one series (see `ctenrich.inference.segmenter.Segmenter.segment`).

        Raises
        ------
        InputError
            WRONG_MODALITY without a CT volume in HU.
        """

        def label(volume: Volume, array: NDArray[Any]) -> CtAnswer:
            start = time.perf_counter()
            labels = self.label(array, volume.affine_lps, progress=progress)
            return CtAnswer(labels=labels, classes=self.names, timings={"network": time.perf_counter() - start})

        return segment_ct(inputs, workspace, self.product, self.info, label)

    def label(self, array: NDArray[Any], affine_lps: Matrix4, *, progress: Progress = SILENT) -> NDArray[np.uint8]:
        """Segment a CT.

        Parameters
        ----------
        array : array, [k, j, i], HU
            At least two slices.
        affine_lps : 4x4
            (i, j, k, 1) -> mm, LPS.
        progress : Progress

        Returns
        -------
        array, [k, j, i]
            Label values as in `names`.
        """
        axes = canonical_axes(affine_lps, "LPS")
        answers = [axes.back(self._label_slices(axes.turn(array), tensors, progress)) for tensors in self.networks]
        return np.ascontiguousarray(answers[0] if len(answers) == 1 else fuse(answers[0], answers[1]))

    def _label_slices(self, array: NDArray[Any], tensors: Tensors, progress: Progress) -> NDArray[np.uint8]:
        """Label map [z, y, x] of one network."""
        planes = list(in_order(resize_slice, [np.ascontiguousarray(plane) for plane in array], self._workers()))
        images = [image for image, _ in planes]
        labels = clean_labels(np.concatenate(list(self._predict(images, tensors, progress))))
        shape = (int(array.shape[1]), int(array.shape[2]))
        return np.stack([resize_labels(label, box, shape) for label, (_, box) in zip(labels, planes, strict=True)])

    def _workers(self) -> int:
        import torch  # heavy; a network is loaded anyway

        return (self.threads or torch.get_num_threads()) if self.device.type == "cpu" else 1

    def _predict(self, images: list[NDArray[Any]], tensors: Tensors, progress: Progress) -> Iterator[NDArray[np.uint8]]:
        """Label maps of the slices, batch by batch."""
        import torch  # heavy; a network is loaded anyway

        size = _GPU_BATCH if self.device.type == "cuda" else _BATCH
        batches = [images[first : first + size] for first in range(0, len(images), size)]
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

        def run(batch: list[NDArray[Any]]) -> NDArray[np.uint8]:
            stacked = (np.stack(batch)[:, None] + 1024) / 1624
            x = torch.as_tensor(stacked, dtype=torch.float32).to(self.device)
            with torch.inference_mode(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                return forward(tensors, x).max(1)[1].to(torch.uint8).cpu().numpy()

        progress.start("network", len(batches))
        with closing(in_order(run, batches, self._workers())) as results:
            for labels in results:
                progress.advance("network")
                yield labels
        progress.finish("network")


# ---------------------------------------------------------------- kind


def _open(spec: SegmenterSpec, settings: Settings) -> LungmaskSegmenter:
    return open_lungmask(spec.model, settings=settings.segment)


def _check(spec: SegmenterSpec) -> None:
    """Refuse a task that does not exist; the weights need not be on this machine yet."""
    _check_task_name(spec.model)


def _find_files(spec: SegmenterSpec) -> None:
    for name in TASKS[spec.model]:
        weights_file(name)


LUNGMASK = segmentation_kind(
    "lungmask",
    "lungmask",
    _open,
    lambda product: f"{product.model}_lungmask",
    seconds_per_slice={"segment": 0.3, "measure": 0.004, "encode": 0.012, "validate": 0.02},
    takes_path=False,
    registered_models=False,
    check=_check,
    find_files=_find_files,
    words=("R231|LTRCLobes|LTRCLobes_R231|R231CovidWeb", ""),
    registry_models=lambda spec: TASKS.get(spec.model, ()),
    model_files=ModelFiles(
        recognise=lambda model: model.entry is not None and model.entry.kind is ModelKind.LUNGMASK,
        describe=_describe,
    ),
)
