"""Body part regression: open a model once, then score series after series.

A model is a folder in the public model's format: ``model.pt`` (a state dict) or ``model.safetensors``,
``inference-settings.json`` (look-up table, expected slopes) and optionally ``config.json``. The format does not state
the orientation of the images in training: ``"image axes": "viewer"`` or ``"nifti"`` in config.json does; a config that
names bpreg's ``transform_params`` was written by bpreg's trainer, which reads NIfTI; otherwise it is ``viewer``.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctenrich.bodypart.images import ImageAxes, ImageMaker, feet_to_head, plan_images
from ctenrich.bodypart.network import BodyPartNetwork, network_from_state
from ctenrich.bodypart.scores import CleanScores, CleanUp, clean_scores
from ctenrich.errors import GeometryError, InputError, ModelError
from ctenrich.inference.device import check_precision, choose_device
from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.process import prepare_process
from ctenrich.inference.registry import ResolvedModel, resolve_model
from ctenrich.inference.state_dict import load_state_dict
from ctenrich.inference.threads import in_order, torch_threads
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    Issue,
    ModelInfo,
    Product,
    ProductKind,
    Severity,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

__all__ = ["BodyPartModel", "BodyPartScorer", "RawScores", "load_bodypart_model", "open_bodypart", "scores_of"]

CPU_BATCH = 4
GPU_BATCH = 64
_DECIMALS = 6


@dataclass(frozen=True)
class BodyPartModel:
    """Content of a model folder besides the weights."""

    clean_up: CleanUp
    lookup_table: dict[str, tuple[float, float]]
    """Landmark -> (mean score, standard deviation), on the scale 0..100."""
    axes: ImageAxes
    """Orientation of the images that the network expects."""
    sha256: str
    """Over weights, settings and axes."""


# ---------------------------------------------------------------- opening


def open_bodypart(model: str, *, settings: Settings) -> BodyPartScorer:
    """Open a body part regression model.

    Parameters
    ----------
    model : str
        Registry name, name of an imported model, or folder.
    settings : Settings
        `segment.device`, `segment.precision`, `segment.batch_size`.

    Returns
    -------
    BodyPartScorer

    Raises
    ------
    ModelError
        NOT_FOUND, BAD_MODEL, UNSAFE_WEIGHTS, HASH_MISMATCH or LICENCE_NOT_ACCEPTED.
    UsageError
        BAD_SETTINGS for an unknown device or precision.
    """
    found = resolve_model(model)
    check_imported_files(found.folder)
    prepare_process()
    network, description = load_bodypart_model(found.folder)
    return BodyPartScorer(network, description, _bodypart_model_info(found, description), settings)


def load_bodypart_model(folder: Path) -> tuple[BodyPartNetwork, BodyPartModel]:
    """Read a model folder in the public model's format and check every key and number.

    Raises
    ------
    ModelError
        BAD_MODEL or UNSAFE_WEIGHTS.
    """
    state = _read_state_dict(folder)
    table = _read_model_json(folder, "inference-settings.json")
    axes = _image_axes(folder)
    network = network_from_state(state)
    digest = hashlib.sha256(json.dumps([table, axes.value], sort_keys=True).encode())
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode() + value.numpy().tobytes())
    clean_up, lookup = _parse_settings(table)
    return network, BodyPartModel(clean_up, lookup, axes, digest.hexdigest())


def _read_state_dict(folder: Path) -> dict[str, torch.Tensor]:
    plain, pickled = folder / "model.safetensors", folder / "model.pt"
    if plain.is_file():
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(plain)
        except (SafetensorError, OSError) as error:
            raise ModelError(Reason.BAD_MODEL, f"{plain.name} cannot be read") from error
    if not pickled.is_file():
        raise ModelError(Reason.BAD_MODEL, f"the model folder {folder.name} has neither model.pt nor model.safetensors")
    return load_state_dict(pickled)


def _read_model_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(Reason.BAD_MODEL, f"the model folder {folder.name} has no {name}") from None
    except ValueError as error:
        raise ModelError(Reason.BAD_MODEL, f"{name} is not JSON") from error
    if not isinstance(data, dict):
        raise ModelError(Reason.BAD_MODEL, f"{name} does not contain the settings of a model")
    return data


def _image_axes(folder: Path) -> ImageAxes:
    if not (folder / "config.json").is_file():
        return ImageAxes.VIEWER
    config = _read_model_json(folder, "config.json")
    value = config.get("image axes", ImageAxes.NIFTI if "transform_params" in config else ImageAxes.VIEWER)
    try:
        return ImageAxes(value)
    except ValueError:
        known = ", ".join(ImageAxes)
        raise ModelError(Reason.BAD_MODEL, f"config.json: unknown image axes {value!r}", f"known: {known}") from None


def _parse_settings(data: dict[str, Any]) -> tuple[CleanUp, dict[str, tuple[float, float]]]:
    try:
        table = data["lookuptable_train_val"]
        ends = [str(data["settings"][key]) for key in ("start-landmark", "end-landmark")]
        low, high = (float(table["original"][name]["mean"]) for name in ends)
        clean_up = CleanUp(
            transform_min=low,
            transform_max=high,
            slope_mean=float(data["slope_mean"]),
            tangential_slope_min=float(data["lower_quantile_tangential_slope"]),
            tangential_slope_max=float(data["upper_quantile_tangential_slope"]),
        )
        lookup = {str(k): (float(v["mean"]), float(v["std"])) for k, v in table["transformed"].items()}
    except (KeyError, TypeError, ValueError) as error:
        message = f"inference-settings.json lacks a required number ({type(error).__name__}: {error})"
        raise ModelError(Reason.BAD_MODEL, message) from None
    numbers = [low, high, clean_up.slope_mean, *(n for pair in lookup.values() for n in pair)]
    if not np.isfinite(numbers).all() or high <= low or clean_up.slope_mean <= 0 or not lookup:
        raise ModelError(Reason.BAD_MODEL, "inference-settings.json contains numbers that form no scale")
    return clean_up, dict(sorted(lookup.items(), key=lambda item: (item[1][0], item[0])))


def _bodypart_model_info(found: ResolvedModel, description: BodyPartModel) -> ModelInfo:
    entry = found.entry
    return ModelInfo(
        name=found.name,
        version=entry.version if entry else "",
        sha256=description.sha256,
        licence=entry.licence if entry else "",
        citation=entry.citation if entry else "",
        source_url=entry.source if entry else "",
        demo=found.demo,
    )


# ---------------------------------------------------------------- scoring


@dataclass(frozen=True)
class RawScores:
    """Unprocessed scores of all slices of a volume, by slice index."""

    values: NDArray[np.float64]
    """``[slice]``; NaN where the network gave no finite number."""
    empty: NDArray[np.bool_]
    """``[slice]``: the slice shows no patient."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds: prepare, network."""


class BodyPartScorer:
    """Scores every slice of a series; opened by :func:`open_bodypart`.

    Parameters
    ----------
    network : BodyPartNetwork
    model : BodyPartModel
    info : ModelInfo
    settings : Settings
        `segment.device`, `segment.precision`, `segment.batch_size` (slices at a time; 0: chosen here).

    Raises
    ------
    UsageError
        BAD_SETTINGS for an unknown device or precision.
    """

    def __init__(self, network: BodyPartNetwork, model: BodyPartModel, info: ModelInfo, settings: Settings) -> None:
        self.info = info
        self.product = Product(ProductKind.BODYPART, info.name)
        self.model = model
        self.device = choose_device(settings.segment.device)
        self._precision = check_precision(settings.segment.precision)
        self._network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch = settings.segment.batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)

    def score(
        self,
        volume: Volume,
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SliceScores:
        """Score the slices of one series.

        Parameters
        ----------
        volume : Volume
            HU, [k, j, i]; any orientation with slices across the patient's long axis.
        series : SortedSeries
            The slices that the volume was made of.

        Returns
        -------
        SliceScores
            By slice index.

        Raises
        ------
        GeometryError
            NOT_AXIAL or ZERO_SPACING.
        InputError
            TOO_FEW_SCORES if fewer than two slices show a patient.
        """
        if volume.shape[0] != len(series.slices):
            raise InputError(Reason.NOT_PREPARED, "the volume does not have the slices of the sorted series")
        if not volume.spacing[0] > 0:
            raise GeometryError(Reason.ZERO_SPACING, "the slice spacing is zero")
        array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
        with torch_threads(settings.segment.threads):
            raw = self.raw_scores(array, volume, progress)
        return scores_of(raw, volume, series, model=self.model, info=self.info)

    def raw_scores(self, array: NDArray[Any], volume: Volume, progress: Progress = SILENT) -> RawScores:
        """Run the network on every slice.

        Parameters
        ----------
        array : array, [k, j, i]
            HU.
        volume : Volume
            Shape and affine of `array`.
        progress : Progress

        Returns
        -------
        RawScores
            By slice index.

        Raises
        ------
        GeometryError
            NOT_AXIAL or ZERO_SPACING.
        InputError
            HU_RANGE if a value is not a number.
        """
        maker = ImageMaker(array, plan_images(volume.shape, volume.affine_lps, self.model.axes))
        count = len(array)
        workers = torch.get_num_threads() if self.device.type == "cpu" else 1

        def work(start: int) -> tuple[torch.Tensor, NDArray[np.bool_], float]:
            began = time.perf_counter()
            images, empty = maker.images(start, start + self._batch)
            prepared = time.perf_counter() - began
            return self._forward(images), empty, prepared

        parts: list[tuple[torch.Tensor, NDArray[np.bool_], float]] = []
        began = time.perf_counter()
        progress.start("score slices", count)
        for part in in_order(work, range(0, count, self._batch), workers):
            parts.append(part)
            progress.advance("score slices", len(part[1]))
        raw = torch.cat([scores for scores, _, _ in parts]).to("cpu", torch.float64).numpy()
        progress.finish("score slices")
        spent = time.perf_counter() - began
        prepared = sum(seconds for _, _, seconds in parts) / workers
        timings = {"prepare": round(prepared, 3), "network": round(spent - prepared, 3)}
        raw[~np.isfinite(raw)] = np.nan
        return RawScores(raw, np.concatenate([empty for _, empty, _ in parts]), timings)

    def _forward(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores of a batch, left on the device; they are copied to the host together at the end."""
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._precision)
        with torch.inference_mode():
            batch = torch.from_numpy(images)[:, None].to(self.device, non_blocking=True)
            batch = batch.contiguous(memory_format=torch.channels_last)
            scores: torch.Tensor
            if kind is not None:
                with torch.autocast(self.device.type, dtype=kind):
                    scores = self._network(batch)
            elif self.device.type == "cpu":  # the flags below are the process's, and here several threads run
                scores = self._network(batch)
            else:
                with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                    scores = self._network(batch)
            return scores.float()


def scores_of(
    raw: RawScores, volume: Volume, series: SortedSeries, *, model: BodyPartModel, info: ModelInfo
) -> SliceScores:
    """Clean raw scores and put them into their record.

    Parameters
    ----------
    raw : RawScores
        By slice index.
    volume : Volume
        Gives slice spacing and affine.
    series : SortedSeries
        Gives the SOP Instance UID and position of every slice.
    model : BodyPartModel
    info : ModelInfo

    Returns
    -------
    SliceScores
        By slice index; scores are rounded to 6 decimals.

    Raises
    ------
    InputError
        TOO_FEW_SCORES if fewer than two slices show a patient.
    """
    if np.count_nonzero(~raw.empty & ~np.isnan(raw.values)) < 2:
        raise InputError(Reason.TOO_FEW_SCORES, "fewer than two slices show a patient")
    upwards = feet_to_head(volume.affine_lps)
    order = slice(None) if upwards else slice(None, None, -1)
    clean = clean_scores(raw.values[order], raw.empty[order], volume.spacing[0], model.clean_up)
    raw_list, cleaned_list = _json_numbers(raw.values), _json_numbers(clean.values[order])
    digest = hashlib.sha256(json.dumps([series.sop_instance_uids, raw_list, cleaned_list]).encode())
    slope = None if clean.slope is None else clean.slope * (1 if upwards else -1)
    first = series.slices[0].distance
    return SliceScores(
        product=Product(ProductKind.BODYPART, info.name),
        series_instance_uid=series.series_instance_uid,
        sop_instance_uids=series.sop_instance_uids,
        z=tuple(round(s.distance - first, _DECIMALS) for s in series.slices),
        raw=raw_list,
        cleaned=cleaned_list,
        observed_slope=_round_or_none(slope),
        expected_slope=model.clean_up.slope_mean,
        slope_ratio=_round_or_none(clean.ratio),
        valid_z_spacing=clean.valid_z_spacing,
        reverse_z_ordering=clean.reverse,
        expected_z_spacing=_round_or_none(clean.expected_z_spacing),
        z_spacing=volume.spacing[0],
        feet_to_head=upwards,
        lookup_table=model.lookup_table,
        model=info,
        sha256=digest.hexdigest(),
        settings=model.clean_up.as_json(),
        issues=_score_issues(clean, raw.empty, series.series_instance_uid),
        timings=raw.timings,
    )


def _score_issues(clean: CleanScores, empty: NDArray[np.bool_], uid: str) -> tuple[Issue, ...]:
    issues: list[Issue] = []
    if clean.reverse:
        message = "scores fall from feet to head: the geometry is reversed, or the scores are not valid"
        issues.append(Issue("reversed_or_invalid", Severity.WARNING, uid, message))
    if clean.slope is None:
        issues.append(Issue("too_few_scores", Severity.WARNING, uid, "fewer than two slices have a valid score"))
    elif not clean.valid_z_spacing:
        message = f"scores rise {clean.ratio:.2f} times as fast as expected: the slice spacing or the scores are off"
        issues.append(Issue("invalid_z_spacing", Severity.WARNING, uid, message))
    if empty.any():
        message = f"{int(empty.sum())} slices show no patient and have no score"
        issues.append(Issue("empty_slices", Severity.NOTE, uid, message))
    return tuple(issues)


def _json_numbers(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(v) else round(float(v), _DECIMALS) for v in values)


def _round_or_none(value: float | None) -> float | None:
    return None if value is None else round(value, 9)
