"""``features.toml``: how a network of a folder makes a feature vector, read and checked."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.features.crop import Cropping, CropRule, Resampling
from ctenrich.networks.intensities import Intensity, IntensityStep
from ctenrich.networks.weights import bad_model
from ctenrich.nnunet.conventions import AXES
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

__all__ = ["FILE", "FeatureModelFile", "check_network_hash", "model_identity", "read_feature_model"]

FILE = "features.toml"
_FORMAT = 1
_MAX_TOML = 1024**2
_MAX_LENGTH = 65_536
_MOST_VOXELS = 512**3
_TEXTS = ("name", "version", "licence", "citation", "source_url")
_KEYS = {*_TEXTS, "format", "file", "sha256", "modality", "length", "axes", "array", "pooling", "structures"}
_TABLES = {
    "crop": {"rule", "size", "spacing", "margin", "threshold", "resampling", "fill", "intensities"},
    "architecture": {"name", "blocks", "width"},
}
_HINT = "see docs/deep-features.md"


@dataclass(frozen=True, kw_only=True)
class FeatureModelFile:
    """What ``features.toml`` states."""

    network: Path
    """TorchScript (.ts, .pt), ONNX (.onnx), or tensors (.safetensors, .pth) of `architecture`."""
    sha256: str
    """SHA-256 of the network, as the file states it."""
    length: int
    """Values of a vector."""
    crop: CropRule
    z_first: bool = False
    """Whether the network's arrays are [z, y, x] instead of [x, y, z]."""
    mean_pooling: bool = False
    """Whether the network returns a feature map, of which the mean over all places is taken."""
    structures: tuple[str, ...] = ()
    """Keys of mappings/segments.csv; empty: every structure."""
    architecture: Mapping[str, Any] | None = None
    name: str = ""
    version: str = ""
    licence: str = ""
    citation: str = ""
    source_url: str = ""


def read_feature_model(folder: Path) -> FeatureModelFile:
    """Read and check ``features.toml``; the network itself is compared with its hash when it is opened.

    Raises
    ------
    ModelError
        NOT_FOUND if the folder or the network is missing; BAD_MODEL, naming the key that is missing or wrong;
        UNKNOWN_AXES if it does not state the axes; WRONG_MODALITY.
    """
    path = folder / FILE
    if not path.is_file():
        raise ModelError(Reason.NOT_FOUND, f"{folder.name} has no file {FILE}", _HINT)
    if path.stat().st_size > _MAX_TOML:
        bad_model(f"{FILE} is too large")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        bad_model(f"{FILE} is not TOML: {str(error)[:100]}")
    _check_keys(values)
    if str(values.get("modality", "CT")).upper() != "CT":
        raise ModelError(Reason.WRONG_MODALITY, f"{folder.name} is a model of {values['modality']}, not of CT")
    sha256 = str(values.get("sha256", "")).lower()
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        bad_model(f"sha256 of {FILE} is not the SHA-256 of the network", "sha256sum FILE prints it")
    return FeatureModelFile(
        network=_network_file(folder, values),
        sha256=sha256,
        length=_whole(values.get("length"), "length", _MAX_LENGTH),
        crop=_crop_rule(values, folder.name),
        z_first=_choice(values.get("array", "xyz"), "array", ("xyz", "zyx")) == "zyx",
        mean_pooling=_choice(values.get("pooling", "none"), "pooling", ("none", "mean")) == "mean",
        structures=_structures(values.get("structures", [])),
        architecture=values.get("architecture"),
        **{key: str(values.get(key, "")) for key in _TEXTS},
    )


def model_identity(stated: FeatureModelFile) -> str:
    """SHA-256 of the network's hash and of all that decides a vector; texts such as the licence are left out."""
    rules = asdict(stated)
    for key in ("network", *_TEXTS):
        rules.pop(key)
    return hashlib.sha256(f"features-1 {json.dumps(rules, sort_keys=True)}".encode()).hexdigest()


def check_network_hash(stated: FeatureModelFile) -> None:
    """Refuse a network that is not the one that ``features.toml`` states.

    Raises
    ------
    ModelError
        HASH_MISMATCH.
    """
    if sha256_of_file(stated.network) != stated.sha256:
        message = f"{stated.network.name} does not have the SHA-256 that {FILE} states"
        raise ModelError(Reason.HASH_MISMATCH, message, "get the file again, or state the hash of the right one")


def _check_keys(values: Mapping[str, Any]) -> None:
    other = sorted(values.keys() - _KEYS - _TABLES.keys())
    if other:
        bad_model(f"{FILE} has the key {other[0][:40]!r}", f"known keys: {', '.join(sorted(_KEYS | _TABLES.keys()))}")
    if values.get("format") != _FORMAT:
        bad_model(f"format {values.get('format')!r} of {FILE} is not known", f"this version reads format = {_FORMAT}")
    for name, known in _TABLES.items():
        table = values.get(name, {})
        if not isinstance(table, dict):
            bad_model(f"{name} of {FILE} is not a table", _HINT)
        unknown = sorted(table.keys() - known)
        if unknown:
            bad_model(f"[{name}] of {FILE} has the key {unknown[0][:40]!r}", f"known keys: {', '.join(sorted(known))}")


def _network_file(folder: Path, values: Mapping[str, Any]) -> Path:
    named = values.get("file")
    if not isinstance(named, str) or PurePosixPath(named).name != named or named in ("", ".", ".."):
        bad_model(f"file of {FILE} is not the name of a file beside it")
    path = folder / named
    if not path.is_file():
        hint = f"{FILE} names the network: file = ..."
        raise ModelError(Reason.NOT_FOUND, f"{folder.name} has no file {named}", hint)
    return path


def _crop_rule(values: Mapping[str, Any], name: str) -> CropRule:
    crop = values.get("crop", {})
    axes = values.get("axes")
    if axes is None:
        hint = f'add axes = "RAS" (or LAS, LPS) to {FILE}'
        raise ModelError(Reason.UNKNOWN_AXES, f"nothing states the axes that {name} was trained on", hint)
    rule = Cropping(_choice(crop.get("rule"), "rule", tuple(Cropping)))
    size = _numbers(crop.get("size"), 3, "size")
    if not all(v == int(v) and 1 <= v <= 1024 for v in size) or size[0] * size[1] * size[2] > _MOST_VOXELS:
        bad_model(f"size of {FILE} is {crop.get('size')!r}", _HINT)
    x, y, z = map(int, size)
    return CropRule(
        rule=rule,
        axes=_choice(axes, "axes", tuple(AXES)),
        size=(x, y, z),
        spacing=_spacing(crop, rule),
        margin=_only_of(crop, "margin", rule is Cropping.BOUNDING_BOX, 0.0) or 0.0,
        threshold=_only_of(crop, "threshold", rule is Cropping.VOLUME, None),
        resampling=Resampling(_choice(crop.get("resampling", "linear"), "resampling", tuple(Resampling))),
        fill=_number(crop.get("fill", -1024.0), "fill"),
        intensities=_intensities(crop.get("intensities", [])),
    )


def _spacing(crop: Mapping[str, Any], rule: Cropping) -> tuple[float, float, float] | None:
    if (rule is Cropping.CENTROID) != ("spacing" in crop):
        bad_model(f"spacing of {FILE} belongs to the rule centroid, and to no other", _HINT)
    if rule is not Cropping.CENTROID:
        return None
    if crop.get("resampling", "linear") != "linear":
        bad_model(f"the rule centroid of {FILE} resamples by linear interpolation only", _HINT)
    x, y, z = _numbers(crop["spacing"], 3, "spacing")
    if not all(0.01 <= v <= 100 for v in (x, y, z)):
        bad_model(f"spacing of {FILE} is {crop['spacing']!r}", "x, y, z in mm")
    return x, y, z


def _only_of(crop: Mapping[str, Any], key: str, fits: bool, default: float | None) -> float | None:
    if key not in crop:
        return default
    value = _number(crop[key], key)
    if not fits or (key == "margin" and not 0 <= value <= 1000):
        bad_model(f"{key} of {FILE} is {crop[key]!r}, or does not belong to its rule", _HINT)
    return value


def _intensities(rows: Any) -> tuple[Intensity, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) and len(row) == 1 for row in rows):
        bad_model(f"intensities of {FILE} is not a list of steps", "for example: [{ clip = [-1000, 400] }]")
    steps = []
    for row in rows:
        ((name, value),) = row.items()
        step = IntensityStep(_choice(name, "intensities", tuple(IntensityStep)))
        if step.numbers == 0 and value is not True:
            bad_model(f"the step {name} of {FILE} has no numbers", f"write {name} = true")
        numbers = _numbers(value, step.numbers, name) if step.numbers else ()
        if (step is IntensityStep.RANGE and numbers[0] == numbers[1]) or (
            step is IntensityStep.STANDARD and numbers[1] == 0
        ):
            bad_model(f"the step {name} of {FILE} divides by 0")
        steps.append(Intensity(step=step, values=numbers))
    return tuple(steps)


def _structures(rows: Any) -> tuple[str, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, str) and row for row in rows):
        bad_model(f"structures of {FILE} is not a list of names", "keys of mappings/segments.csv")
    return tuple(rows)


def _choice(value: Any, key: str, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        bad_model(f"{key} of {FILE} is {value!r}", f"known: {', '.join(known)}")
    return value


def _whole(value: Any, key: str, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        bad_model(f"{key} of {FILE} is {value!r}", f"a whole number from 1 to {most}")
    return value


def _number(value: Any, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
        bad_model(f"{key} of {FILE} is not a number")
    return float(value)


def _numbers(value: Any, count: int, key: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count:
        bad_model(f"{key} of {FILE} is not a list of {count} numbers")
    return tuple(_number(v, key) for v in value)
