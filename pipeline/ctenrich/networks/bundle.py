"""Read the configuration of a MONAI bundle as data: references are followed, no expression of it is executed.

A bundle is a folder with ``configs/inference.json``, ``configs/metadata.json`` and weights below ``models/``. Its
configuration may hold Python; here only literals, conditions on a reference and sums of texts or numbers are read.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.networks.grid_segmenter import GridRules
from ctenrich.networks.intensities import Intensity, IntensityStep
from ctenrich.networks.segresnet import SegResNet
from ctenrich.networks.weights import bad_model
from ctenrich.networks.windows import Windows
from ctenrich.nnunet.conventions import AXES
from ctenrich.reasons import Reason

__all__ = ["Bundle", "bundle_folder", "read_bundle"]

_CONFIGURATION, _METADATA = "configs/inference.json", "configs/metadata.json"
_MAX_BYTES = 4 * 1024**2
_REFERENCE = re.compile(r"@([A-Za-z_][A-Za-z0-9_]*(?:(?:#|::)[A-Za-z0-9_]+)*)")
_MAX_DEPTH = 20
_MAX_BLOCKS, _MAX_CLASSES = 100, 4096
_NETWORK = {
    *("_target_", "spatial_dims", "in_channels", "out_channels", "init_filters", "blocks_down", "blocks_up"),
    *("dropout_prob", "norm", "upsample_mode", "use_conv_final", "act"),
}
_SPEED_ALONE = (
    "device",
    "sw_device",
    "sw_batch_size",
    "progress",
    "buffer_steps",
    "buffer_dim",
    "cache_roi_weight_map",
)
"""Options of an inferer that do not change its answer."""
_WITHOUT_EFFECT = ("LoadImaged", "EnsureTyped", "EnsureChannelFirstd", "SaveImaged", "ToTensord", "CastToTyped")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a bundle states."""

    name: str
    version: str
    network: SegResNet
    weights: Path
    rules: GridRules
    labels: Mapping[str, int]
    """Name of the class -> channel, background not included."""
    licence: str = ""
    citation: str = ""


def bundle_folder(folder: Path) -> Path | None:
    """Folder that holds a bundle's ``configs``: the given one, or the only folder in it; None if neither does."""
    inner = [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    places = [folder, *(inner if len(inner) == 1 else ())]
    return next((place for place in places if (place / _CONFIGURATION).is_file()), None)


def read_bundle(folder: Path, resolution: str = "") -> Bundle:
    """Read and check the configuration of a bundle.

    Parameters
    ----------
    folder : Path
        Of the bundle.
    resolution : str
        ``lowres`` or ``highres`` for bundles with the switch ``displayable_configs.highres``; empty: as the bundle is
        set.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        BAD_MODEL, naming the part of the configuration that is missing or not supported; WRONG_MODALITY.
    """
    config = _read_json(folder / _CONFIGURATION)
    metadata = _read_json(folder / _METADATA)
    if resolution:
        shown = config.get("displayable_configs")
        if not isinstance(shown, dict) or not isinstance(shown.get("highres"), bool):
            bad_model(f"the bundle {folder.name} has no lowres model", "leave the resolution out")
        shown["highres"] = resolution == "highres"
    values = _Values(config)
    image, pred = _formats(metadata, folder.name)
    if str(image.get("modality", "")).upper() != "CT" or image.get("num_channels", 1) != 1:
        shown = f"{image.get('num_channels', 1)} channels of {image.get('modality')}"
        message = f"the input of {folder.name} is {shown}; only one channel of CT is supported"
        raise ModelError(Reason.WRONG_MODALITY, message)
    network = _network_of(values.get("network_def"))
    preprocessing = _transforms(values, "preprocessing")
    _check_postprocessing(_transforms(values, "postprocessing"))
    axes, spacing, intensities = _rules_of(preprocessing)
    windows = _windows_of(values.get("inferer", _SPEED_ALONE))
    rules = GridRules(axes=axes, spacing=spacing, intensities=intensities, windows=windows)
    if any(size % 2 ** (len(network.blocks_down) - 1) for size in windows.size):
        bad_model(f"roi_size of {folder.name} cannot be halved {len(network.blocks_down) - 1} times")
    references = metadata.get("references", ())
    references = references if isinstance(references, list) else []
    return Bundle(
        name=str(metadata.get("name", folder.name)),
        version=str(metadata.get("version", "")),
        network=network,
        weights=_weights_of(values, folder),
        rules=rules,
        labels=_labels_of(pred, network.classes, folder.name),
        licence=_licence_of(folder),
        citation="; ".join(item for item in references if isinstance(item, str)),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(Reason.NOT_FOUND, f"the bundle has no file {path.parent.name}/{path.name}")
    if path.stat().st_size > _MAX_BYTES:
        bad_model(f"{path.name} is too large")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        bad_model(f"{path.name} is not JSON")
    if not isinstance(found, dict):
        bad_model(f"{path.name} is not a table")
    return found


# ---------------------------------------------------------------- values


class _Values:
    """Values of a configuration, with references followed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def get(self, key: str, without: Sequence[str] = ()) -> Any:
        """Value of an item, some of its parts left out; BAD_MODEL if it is missing or would have to be executed."""
        item = self._item(key)
        if isinstance(item, dict):
            item = {name: value for name, value in item.items() if name not in without}
        return self._value(item, 0, key)

    def _item(self, path: str) -> Any:
        found: Any = self.config
        for part in re.split("#|::", path):
            key: Any = int(part) if isinstance(found, list) and part.isdigit() else part
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                bad_model(f"inference.json has no item {path}")
        return found

    def _value(self, item: Any, depth: int, place: str) -> Any:
        if depth > _MAX_DEPTH:
            bad_model(f"{place} of inference.json refers to itself")
        if isinstance(item, dict):
            return {key: self._value(value, depth + 1, place) for key, value in item.items()}
        if isinstance(item, list):
            return [self._value(value, depth + 1, place) for value in item]
        if not isinstance(item, str):
            return item
        whole = _REFERENCE.fullmatch(item)
        if whole is not None:
            return self._value(self._item(whole[1]), depth + 1, place)
        return self._expression(item[1:], depth, place) if item.startswith("$") else item

    def _expression(self, text: str, depth: int, place: str) -> Any:
        filled = _REFERENCE.sub(lambda m: repr(self._value(self._item(m[1]), depth + 1, place)), text)
        try:
            return _literal(ast.parse(filled.strip(), mode="eval").body)
        except (ValueError, SyntaxError, TypeError, RecursionError):
            return bad_model(
                f"{place} of inference.json has the expression ${text[:60]}, which would have to be executed"
            )


def _literal(node: ast.expr) -> Any:
    """Value of a literal, a condition or a sum; ValueError for any other expression."""
    if isinstance(node, ast.IfExp):
        return _literal(node.body if _literal(node.test) else node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _literal(node.left), _literal(node.right)
        if type(left) is not type(right) or not isinstance(left, str | int | float):
            raise ValueError("sum")
        return left + right
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)


# ---------------------------------------------------------------- parts


def _formats(metadata: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        data = metadata["network_data_format"]
        image, pred = data["inputs"]["image"], data["outputs"]["pred"]
        return dict(image), dict(pred)
    except (KeyError, TypeError, ValueError):
        return bad_model(f"metadata.json of {name} does not describe the input image and the output pred")


def _target(item: Any) -> str:
    """Name of the class of a component, without its module."""
    return str(item.get("_target_", "")).rpartition(".")[2] if isinstance(item, Mapping) else ""


def _network_of(item: Any) -> SegResNet:
    if _target(item) != "SegResNet":
        hint = "export the network with torch.jit.trace and use torchscript:FOLDER"
        bad_model(f"the network of the bundle is {_target(item) or 'not stated'}; SegResNet is supported", hint)
    other = sorted(item.keys() - _NETWORK)
    norm = item.get("norm", ["GROUP", {"num_groups": 8}])
    activation = item.get("act", "RELU")
    relu = str(activation[0] if isinstance(activation, list) else activation).upper() == "RELU"
    plain = item.get("spatial_dims", 3) == 3 and item.get("in_channels", 1) == 1 and item.get("use_conv_final", True)
    grouped = isinstance(norm, Sequence) and len(norm) == 2 and str(norm[0]).upper() == "GROUP"
    if other or not plain or not grouped or not relu or item.get("upsample_mode", "nontrainable") != "nontrainable":
        bad_model(
            f"the SegResNet of the bundle is of a form that is not supported: {', '.join(other) or 'see its options'}"
        )
    try:
        network = SegResNet(
            classes=int(item["out_channels"]),
            filters=int(item.get("init_filters", 8)),
            groups=int(dict(norm[1]).get("num_groups", 8)),
            blocks_down=tuple(map(int, item.get("blocks_down", (1, 2, 2, 4)))),
            blocks_up=tuple(map(int, item.get("blocks_up", (1, 1, 1)))),
        )
    except (KeyError, TypeError, ValueError):
        bad_model("the sizes of the bundle's network are not whole numbers")
    blocks = (*network.blocks_down, *network.blocks_up)
    levels = len(network.blocks_up) == len(network.blocks_down) - 1 and min(blocks, default=0) >= 1
    if not levels or sum(blocks) > _MAX_BLOCKS or not 2 <= network.classes <= _MAX_CLASSES:
        bad_model("the bundle's network has a number of blocks or classes that is not supported")
    if min(network.filters, network.groups) < 1 or network.filters % network.groups:
        bad_model(f"the {network.filters} filters of the bundle's network are not {network.groups} equal groups")
    return network


def _transforms(values: _Values, key: str) -> list[Mapping[str, Any]]:
    """The transforms of an item that change anything; others are not even read."""
    listed = values._item(key)
    listed = listed.get("transforms") if isinstance(listed, Mapping) else None
    if not isinstance(listed, list):
        bad_model(f"{key} of inference.json is not a list of transforms")
    kept = [item for item in listed if _target(item) not in _WITHOUT_EFFECT]
    return [
        {name: value if name in ("transform", "keys") else values._value(value, 0, key) for name, value in item.items()}
        for item in kept
        if isinstance(item, Mapping)
    ]


def _rules_of(
    transforms: Sequence[Mapping[str, Any]],
) -> tuple[str, tuple[float, float, float] | None, tuple[Intensity, ...]]:
    axes, spacing = "", None
    steps: list[Intensity] = []
    for item in transforms:
        target = _target(item)
        if target == "Orientationd":
            axes = str(item.get("axcodes", ""))
        elif target == "Spacingd" and not steps and axes:
            spacing = _spacing_of(item)
        elif target in _INTENSITIES:
            steps += _INTENSITIES[target](item)
        else:
            bad_model(f"the transform {target} of the bundle's preprocessing is not supported, or not at its place")
    if axes not in AXES:
        bad_model(
            f"the bundle's preprocessing turns the image to {axes or 'no stated axes'}", f"known: {', '.join(AXES)}"
        )
    return axes, spacing, tuple(steps)


def _spacing_of(item: Mapping[str, Any]) -> tuple[float, float, float]:
    other = sorted(item.keys() - {"_target_", "keys", "pixdim", "mode"})
    mode = item.get("mode", "bilinear")
    if other or (mode[0] if isinstance(mode, list) else mode) != "bilinear":
        bad_model(f"Spacingd of the bundle has the option {(other or ['mode'])[0]}, which is not supported")
    x, y, z = _numbers(item.get("pixdim"), 3, "pixdim")
    if not all(0.01 <= size <= 100 for size in (x, y, z)):
        bad_model(f"pixdim of the bundle is {x}, {y}, {z} mm")
    return x, y, z


def _numbers(value: Any, count: int, name: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        bad_model(f"{name} of the bundle is not {count} numbers")
    return tuple(float(v) for v in values)


def _only(item: Mapping[str, Any], *names: str) -> None:
    other = sorted(item.keys() - {"_target_", "keys", *names})
    if other:
        bad_model(f"{_target(item)} of the bundle has the option {other[0]}, which is not supported")


def _zscore(item: Mapping[str, Any]) -> list[Intensity]:
    _only(item, "nonzero", "channel_wise")
    return [Intensity(step=IntensityStep.ZSCORE_NONZERO if item.get("nonzero") else IntensityStep.ZSCORE)]


def _minmax(item: Mapping[str, Any]) -> list[Intensity]:
    _only(item, "minv", "maxv")
    values = _numbers([item.get("minv", 0.0), item.get("maxv", 1.0)], 2, "ScaleIntensityd")
    return [Intensity(step=IntensityStep.MINMAX, values=values)]


def _range(item: Mapping[str, Any]) -> list[Intensity]:
    _only(item, "a_min", "a_max", "b_min", "b_max", "clip")
    ends = _numbers([item.get(k) for k in ("a_min", "a_max", "b_min", "b_max")], 4, "ScaleIntensityRanged")
    if ends[0] == ends[1]:
        bad_model("ScaleIntensityRanged of the bundle has an empty range")
    steps = [Intensity(step=IntensityStep.RANGE, values=ends)]
    return [*steps, Intensity(step=IntensityStep.CLIP, values=ends[2:])] if item.get("clip") else steps


_INTENSITIES = {"NormalizeIntensityd": _zscore, "ScaleIntensityd": _minmax, "ScaleIntensityRanged": _range}


def _check_postprocessing(transforms: Sequence[Mapping[str, Any]]) -> None:
    """Only the class of the highest score, resampled back by the nearest neighbour, is supported."""
    targets = [_target(item) for item in transforms if _target(item) != "Activationsd"]
    if targets[:2] != ["AsDiscreted", "Invertd"] or len(targets) != 2:
        bad_model(f"the bundle's postprocessing is {', '.join(targets) or 'empty'}; AsDiscreted, Invertd is supported")
    if transforms[-2].get("argmax") is not True or transforms[-1].get("nearest_interp", True) is not True:
        bad_model("the bundle's postprocessing does not take the class of the highest score by the nearest neighbour")


def _windows_of(item: Any) -> Windows:
    if _target(item) != "SlidingWindowInferer":
        bad_model(f"the inferer of the bundle is {_target(item) or 'not stated'}; SlidingWindowInferer is supported")
    size = _numbers(item.get("roi_size"), 3, "roi_size")
    (overlap,) = _numbers(item.get("overlap", 0.25), 1, "overlap")
    padding, mode = item.get("padding_mode", "constant"), item.get("mode", "constant")
    _only(item, "roi_size", "overlap", "mode", "padding_mode")
    good = padding in ("constant", "replicate", "reflect") and mode in ("constant", "gaussian")
    if not good or not 0 <= overlap < 1 or not all(v >= 1 and v == int(v) for v in size):
        bad_model("roi_size, overlap, mode or padding_mode of the bundle's inferer is not supported")
    x, y, z = map(int, size)
    return Windows(size=(x, y, z), overlap=overlap, gaussian=mode == "gaussian", padding=padding)


def _weights_of(values: _Values, folder: Path) -> Path:
    """File of the weights: the name in ``checkpointloader``, always below ``models/``."""
    loader = values.config.get("checkpointloader")
    named = "model.pt"
    if isinstance(loader, Mapping) and "load_path" in loader:
        named = str(values._value(loader["load_path"], 0, "checkpointloader"))
    path = folder / "models" / PurePosixPath(named).name
    safe = path.with_suffix(".safetensors")
    return safe if safe.is_file() and not path.is_file() else path


def _labels_of(pred: Mapping[str, Any], classes: int, name: str) -> dict[str, int]:
    listed = pred.get("channel_def")
    if not isinstance(listed, Mapping) or not all(re.fullmatch("[0-9]{1,4}", str(key)) for key in listed):
        bad_model(f"metadata.json of {name} does not name the classes (channel_def)")
    labels = {str(label): int(key) for key, label in listed.items() if int(key)}
    if sorted(labels.values()) != list(range(1, classes)):
        bad_model(f"metadata.json of {name} names {len(labels)} classes, its network has {classes - 1}")
    return labels


def _licence_of(folder: Path) -> str:
    """First line of the bundle's licence file."""
    path = folder / "LICENSE"
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as handle:
        lines = (line.strip() for line in handle.read(4000).splitlines())
    return next((line[:100] for line in lines if line), "")
