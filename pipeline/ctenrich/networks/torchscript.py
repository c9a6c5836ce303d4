"""The kind ``torchscript``: any network that was exported by torch.jit, with a TOML file that states how to use it.

A folder holds the network and ``torchscript.toml``. A TorchScript file is a program in a restricted language: its
operators are listed before it is loaded, and one that reads or writes files, or is not torch's own, is refused.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ctenrich.errors import ModelError
from ctenrich.inference.device import check_precision, choose_device
from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.kinds import ModelFiles
from ctenrich.inference.process import prepare_process
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import ResolvedModel, check_name, resolve_model
from ctenrich.inference.segmentation import Classes, class_names, class_rows, segmentation_kind
from ctenrich.networks.grid_segmenter import GridRules, GridSegmenter
from ctenrich.networks.intensities import Intensity, IntensityStep
from ctenrich.networks.weights import bad_model, check_settings
from ctenrich.networks.windows import Windows
from ctenrich.nnunet.conventions import AXES
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo, Product
from ctenrich.settings import SegmentSettings
from ctenrich.workspace import sha256_of_file

if TYPE_CHECKING:
    import torch

__all__ = ["FILE", "TORCHSCRIPT", "TorchscriptModel", "open_torchscript", "read_torchscript_toml"]

FILE = "torchscript.toml"
_FORMAT = 1
_MAX_TOML = 1024**2
_MAX_CODE = 64 * 1024**2
_KEYS = {
    *("format", "file", "name", "version", "licence", "citation", "modality", "axes", "spacing", "window", "overlap"),
    *("weighting", "padding", "array", "intensities", "labels"),
}
_OWN_OPERATORS = ("aten", "prim")
_FILE_OPERATORS = ("save", "load", "from_file")
_OPERATOR = re.compile(r"\bops\.(\w+)\.(\w+)|\btorch\.(\w+)\(|\b(__torch__\.torch\.classes)\b")


@dataclass(frozen=True, kw_only=True)
class TorchscriptModel:
    """What ``torchscript.toml`` states."""

    file: Path
    rules: GridRules
    labels: Mapping[str, int]
    """Name of the class -> channel, background (channel 0) not included."""
    z_first: bool = False
    """Whether the network's arrays are [z, y, x] instead of [x, y, z]."""
    name: str = ""
    version: str = ""
    licence: str = ""
    citation: str = ""

    @property
    def classes(self) -> int:
        """Number of channels, background included."""
        return len(self.labels) + 1


# ---------------------------------------------------------------- torchscript.toml


def read_torchscript_toml(folder: Path) -> TorchscriptModel:
    """Read and check ``torchscript.toml``.

    Raises
    ------
    ModelError
        NOT_FOUND if the folder or the network is missing; BAD_MODEL, naming the key that is missing or wrong;
        UNKNOWN_AXES if it does not state the axes; WRONG_MODALITY.
    """
    path = folder / FILE
    if not path.is_file():
        raise ModelError(Reason.NOT_FOUND, f"{folder.name} has no file {FILE}", "see docs/own-model.md")
    if path.stat().st_size > _MAX_TOML:
        bad_model(f"{FILE} is too large")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        bad_model(f"{FILE} is not TOML: {str(error)[:100]}")
    other = sorted(values.keys() - _KEYS)
    if other:
        bad_model(f"{FILE} has the key {other[0][:40]!r}", f"known keys: {', '.join(sorted(_KEYS))}")
    if values.get("format") != _FORMAT:
        bad_model(f"format {values.get('format')!r} of {FILE} is not known", f"this version reads format = {_FORMAT}")
    if str(values.get("modality", "CT")).upper() != "CT":
        message = f"{folder.name} is a model of {values['modality']}; only CT is supported"
        raise ModelError(Reason.WRONG_MODALITY, message)
    array = values.get("array", "xyz")
    if array not in ("xyz", "zyx"):
        bad_model(f"array of {FILE} is {array!r}", "xyz (MONAI, nibabel) or zyx (nnU-Net, SimpleITK)")
    return TorchscriptModel(
        file=_network_file(folder, values),
        rules=_rules_of(values, folder.name),
        labels=_labels_of(values),
        z_first=array == "zyx",
        **{key: str(values.get(key, "")) for key in ("name", "version", "licence", "citation")},
    )


def _network_file(folder: Path, values: Mapping[str, Any]) -> Path:
    named = values.get("file", "model.ts")
    if not isinstance(named, str) or PurePosixPath(named).name != named or named in ("", ".", ".."):
        bad_model(f"file of {FILE} is not the name of a file beside it")
    path = folder / named
    if not path.is_file():
        raise ModelError(
            Reason.NOT_FOUND, f"{folder.name} has no file {named}", f"{FILE} names the network: file = ..."
        )
    return path


def _rules_of(values: Mapping[str, Any], name: str) -> GridRules:
    axes = values.get("axes")
    if axes is None:
        hint = f'add axes = "RAS" (or LAS, LPS) to {FILE}'
        raise ModelError(Reason.UNKNOWN_AXES, f"nothing states the axes that {name} was trained on", hint)
    if axes not in AXES:
        bad_model(f"axes of {FILE} is {axes!r}", f"known: {', '.join(AXES)}")
    spacing = _numbers(values["spacing"], 3, "spacing") if "spacing" in values else None
    size = _numbers(values.get("window"), 3, "window")
    overlap = values.get("overlap", 0.25)
    weighting, padding = values.get("weighting", "gaussian"), values.get("padding", "replicate")
    for key, good in (
        ("spacing", spacing is None or all(0.01 <= v <= 100 for v in spacing)),
        ("window", all(v == int(v) and 1 <= v <= 512 for v in size)),
        ("overlap", isinstance(overlap, int | float) and not isinstance(overlap, bool) and 0 <= overlap <= 0.95),
        ("weighting", weighting in ("gaussian", "constant")),
        ("padding", padding in ("replicate", "constant", "reflect")),
    ):
        if not good:
            bad_model(f"{key} of {FILE} is {values.get(key)!r}", "see docs/own-model.md")
    x, y, z = map(int, size)
    windows = Windows(size=(x, y, z), overlap=float(overlap), gaussian=weighting == "gaussian", padding=padding)
    sides = (spacing[0], spacing[1], spacing[2]) if spacing is not None else None
    return GridRules(axes=axes, spacing=sides, intensities=_steps_of(values.get("intensities", [])), windows=windows)


def _numbers(value: Any, count: int, key: str) -> tuple[float, ...]:
    good = isinstance(value, list) and len(value) == count
    if not good or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        bad_model(f"{key} of {FILE} is not a list of {count} numbers")
    return tuple(float(v) for v in value)


def _steps_of(rows: Any) -> tuple[Intensity, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) and len(row) == 1 for row in rows):
        bad_model(
            f"intensities of {FILE} is not a list of steps", "for example: intensities = [{ clip = [-1000, 400] }]"
        )
    steps = []
    for row in rows:
        ((name, value),) = row.items()
        if name not in list(IntensityStep):
            bad_model(f"intensities of {FILE} has the step {name!r}", f"known: {', '.join(IntensityStep)}")
        step = IntensityStep(name)
        if step.numbers == 0 and value is not True:
            bad_model(f"the step {name} of {FILE} has no numbers", f"write {name} = true")
        numbers = _numbers(value, step.numbers, name) if step.numbers else ()
        divisor = {IntensityStep.RANGE: numbers[1:2] != numbers[:1], IntensityStep.STANDARD: 0.0 not in numbers[1:]}
        if not divisor.get(step, True):
            bad_model(f"the step {name} of {FILE} divides by 0")
        steps.append(Intensity(step=step, values=numbers))
    return tuple(steps)


def _labels_of(values: Mapping[str, Any]) -> dict[str, int]:
    labels = values.get("labels")
    if not isinstance(labels, dict) or not all(type(v) is int for v in labels.values()):
        bad_model(f"[labels] of {FILE} are not names with whole numbers", "for example: heart = 1")
    if not labels or sorted(labels.values()) != list(range(1, len(labels) + 1)):
        bad_model(f"the numbers of [labels] of {FILE} are not 1 to {len(labels)}", "channel 0 is the background")
    return {str(name): value for name, value in labels.items()}


# ---------------------------------------------------------------- the network


def check_operators(path: Path) -> None:
    """Refuse a file that is not TorchScript, or whose program has operators that are not torch's own or use files.

    Raises
    ------
    ModelError
        BAD_MODEL or UNSAFE_WEIGHTS.
    """
    hint = "export the network with torch.jit.trace or torch.jit.script, then save()"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            code = [e for e in entries if e.filename.endswith(".py") and "/code/" in e.filename]
            if not code or not any(e.filename.endswith("/constants.pkl") for e in entries):
                bad_model(f"{path.name} is not a TorchScript file", hint)
            packed = [e for e in entries if "/code/" not in e.filename and e.compress_type != zipfile.ZIP_STORED]
            if packed or sum(e.file_size for e in code) > _MAX_CODE:
                message = f"{path.name} holds compressed weights, or a program that is too long"
                raise ModelError(Reason.UNSAFE_WEIGHTS, message)
            texts = [archive.read(entry).decode("utf-8") for entry in code]
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, NotImplementedError) as error:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} is not a TorchScript file", hint) from error
    for found in _OPERATOR.finditer("\n".join(texts)):
        family, operator, plain, classes = found.groups()
        if classes or (family and family not in _OWN_OPERATORS) or (operator or plain) in _FILE_OPERATORS:
            shown = found[0].rstrip("(")
            message = f"the program in {path.name} uses {shown}, which is not an operator of a network"
            raise ModelError(Reason.UNSAFE_WEIGHTS, message, "export the network without it")


def _load_network(model: TorchscriptModel, device: torch.device) -> Any:
    import torch  # heavy; only models that are opened need it

    check_operators(model.file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that torch.export is to replace TorchScript
            load: Any = torch.jit.load
            module = load(str(model.file), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise ModelError(Reason.BAD_MODEL, f"{model.file.name} is not a TorchScript file of this torch") from error
    _try_window(module, model, device)
    return module


def _try_window(module: Any, model: TorchscriptModel, device: torch.device) -> None:
    """Run one window of zeros: a network of another input or output is refused before any series is touched."""
    import torch  # heavy; only models that are opened need it

    size = model.rules.windows.size[::-1] if model.z_first else model.rules.windows.size
    wanted = (1, model.classes, *size)
    try:
        with torch.inference_mode():
            found = module(torch.zeros((1, 1, *size), device=device))
    except RuntimeError as error:
        last = str(error).strip().rpartition("\n")[2][:120]
        raise ModelError(Reason.BAD_MODEL, f"{model.file.name} cannot take a window of {size}: {last}") from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != wanted:
        shown = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        hint = f"[labels] of {FILE} has {len(model.labels)} classes; channel 0 is the background"
        bad_model(f"the answer of {model.file.name} has the shape {shown}, not {wanted}", hint)


def open_torchscript(model: str, *, settings: SegmentSettings) -> GridSegmenter:
    """Load a TorchScript model; every fault of it is found here, before any series is touched.

    Parameters
    ----------
    model : str
        Name given at import, or path of the folder.
    settings : SegmentSettings
        Device, precision, threads.

    Returns
    -------
    GridSegmenter

    Raises
    ------
    ModelError
        NOT_FOUND, BAD_MODEL, UNSAFE_WEIGHTS, HASH_MISMATCH, UNKNOWN_AXES, WRONG_MODALITY or UNMAPPED_LABEL.
    UsageError
        BAD_SETTINGS.
    """
    check_settings(settings, "torchscript")
    prepare_process()
    resolved = resolve_model(model)
    stated, names = _read(resolved)
    device = choose_device(settings.device)
    network = _load_network(stated, device)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not stated.z_first:
            scores: torch.Tensor = network(x)
            return scores
        turned: torch.Tensor = network(x.permute(0, 1, 4, 3, 2).contiguous())
        return turned.permute(0, 1, 4, 3, 2)

    info = ModelInfo(
        name=stated.name or resolved.name,
        version=stated.version,
        sha256=_identity(resolved, stated),
        licence=stated.licence,
        citation=stated.citation,
    )
    return GridSegmenter(
        product=Product("torchscript", check_name(resolved.name)),
        info=info,
        names=names,
        forward=forward,
        rules=stated.rules,
        classes=stated.classes,
        device=device,
        precision=check_precision(settings.precision),
        threads=settings.threads,
    )


def _read(model: ResolvedModel) -> tuple[TorchscriptModel, Classes]:
    check_imported_files(model.folder)
    stated = read_torchscript_toml(model.folder)
    return stated, class_names(stated.labels, model.name)


def _identity(model: ResolvedModel, stated: TorchscriptModel) -> str:
    """SHA-256 of the network and of the file that states its use."""
    text = f"torchscript {sha256_of_file(stated.file)} {sha256_of_file(model.folder / FILE)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _describe(model: ResolvedModel) -> dict[str, Any]:
    import torch  # heavy; only models that are opened need it

    stated, names = _read(model)
    _load_network(stated, torch.device("cpu"))
    return {
        "segmenter": f"torchscript:{model.name}",
        **({"licence": stated.licence} if stated.licence else {}),
        "axes": stated.rules.axes,
        "spacing": list(stated.rules.spacing or ()),
        "patch": list(stated.rules.windows.size),
        "labels": {label: value for value, _, label in names},
        "classes": class_rows(names),
        "weights_sha256": _identity(model, stated),
    }


def _find_files(spec: SegmenterSpec) -> None:
    _read(resolve_model(spec.model))


TORCHSCRIPT = segmentation_kind(
    "torchscript",
    "TorchScript network",
    lambda spec, settings: open_torchscript(spec.model, settings=settings.segment),
    lambda product: f"{product.model}_TorchScript",
    seconds_per_slice={"segment": 1.0, "measure": 0.01, "encode": 0.03, "validate": 0.05},
    words=("FOLDER", ""),
    find_files=_find_files,
    model_files=ModelFiles(recognise=lambda model: (model.folder / FILE).is_file(), describe=_describe),
)
