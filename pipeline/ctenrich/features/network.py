"""Networks that make feature vectors: TorchScript, ONNX, and tensors of a known architecture; nothing is unpickled."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ModelError
from ctenrich.features.model_file import FeatureModelFile
from ctenrich.inference.device import choose_device
from ctenrich.inference.threads import torch_threads
from ctenrich.networks.torchscript import check_operators
from ctenrich.networks.weights import bad_model, check_tensors, read_tensors
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings
from ctenrich.tools import need_package

__all__ = ["FeatureNetwork", "open_network"]

Floats = NDArray[np.float32]
FeatureNetwork = Callable[[Floats], Floats]
"""Takes one input [x, y, z], returns one vector [length]."""

_EXTERNAL_DATA = re.compile(rb"\x0a\x08location\x12")
"""A tensor of an ONNX file that is stored in another file: the key ``location`` of its entry."""


def open_network(stated: FeatureModelFile, settings: SegmentSettings) -> FeatureNetwork:
    """Load a network; one of unknown form is run once on zeros, so that a wrong form is found before any series.

    Parameters
    ----------
    stated : FeatureModelFile
        The file, whose hash has been checked, and the form of input and output.
    settings : SegmentSettings
        Device and threads; the precision is always fp32.

    Returns
    -------
    FeatureNetwork

    Raises
    ------
    ModelError
        BAD_MODEL or UNSAFE_WEIGHTS.
    UsageError
        MISSING_EXTRA for ONNX without onnxruntime; BAD_SETTINGS for a device that is not there.
    """
    ending = stated.network.suffix.lower()
    if stated.architecture is None and ending in (".safetensors", ".pth"):
        bad_model(f"{stated.network.name} holds tensors, and no [architecture] states their network")
    if stated.architecture is not None and ending not in (".safetensors", ".pth", ".pt"):
        bad_model(f"{stated.network.name} is a network of its own: it has no [architecture]")
    run = _open_onnx(stated.network, settings) if ending == ".onnx" else _open_torch(stated, settings)

    def network(data: Floats) -> Floats:
        given = data.transpose(2, 1, 0) if stated.z_first else data
        return _vector(run(np.ascontiguousarray(given, np.float32)[None, None]), stated)

    if stated.architecture is None:  # of a known architecture the form is known
        network(np.zeros(stated.crop.size, np.float32))
    return network


def _vector(found: NDArray[Any], stated: FeatureModelFile) -> Floats:
    shape = tuple(found.shape)
    if stated.mean_pooling:
        fits = len(shape) == 5 and shape[:2] == (1, stated.length)
    else:
        fits = shape in ((1, stated.length), (1, stated.length, 1, 1, 1))
    if not fits:
        wanted = f"(1, {stated.length}, x, y, z)" if stated.mean_pooling else f"(1, {stated.length})"
        bad_model(
            f"the answer of {stated.network.name} has the shape {shape}, not {wanted}",
            "length and pooling state the form of the answer",
        )
    flat = found.reshape(stated.length, -1).astype(np.float32, copy=False)
    return np.ascontiguousarray(flat.mean(axis=1, dtype=np.float32) if stated.mean_pooling else flat[:, 0])


def _open_torch(stated: FeatureModelFile, settings: SegmentSettings) -> Callable[[Floats], NDArray[Any]]:
    import torch  # heavy; only models that are opened need it

    device = choose_device(settings.device)
    if stated.architecture is not None:
        module = _build_architecture(stated, stated.architecture).to(device)
    else:
        check_operators(stated.network)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces that torch.export is to replace TorchScript
                load: Any = torch.jit.load
                module = load(str(stated.network), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            message = f"{stated.network.name} is not a TorchScript file of this torch"
            raise ModelError(Reason.BAD_MODEL, message) from error

    def run(given: Floats) -> NDArray[Any]:
        with torch.inference_mode(), torch_threads(settings.threads):
            try:
                found = module(torch.from_numpy(given).to(device))
            except RuntimeError as error:
                last = str(error).strip().rpartition("\n")[2][:120]
                raise ModelError(Reason.BAD_MODEL, f"{stated.network.name} cannot take its input: {last}") from error
        if not isinstance(found, torch.Tensor):
            bad_model(f"the answer of {stated.network.name} is a {type(found).__name__}, not a tensor")
        answer: NDArray[Any] = found.float().cpu().numpy()
        return answer

    return run


def _build_architecture(stated: FeatureModelFile, values: Mapping[str, Any]) -> Any:
    from ctenrich.features.i3resnet import I3ResNet  # imports torch

    blocks, width = values.get("blocks", [3, 8, 36, 3]), values.get("width", 64)
    good = isinstance(blocks, list) and len(blocks) == 4 and all(type(n) is int and 1 <= n <= 64 for n in blocks)
    if values.get("name") != "i3resnet" or not good or type(width) is not int or not 1 <= width <= 256:
        bad_model("[architecture] is not one that is known", 'name = "i3resnet", blocks = [3, 8, 36, 3], width = 64')
    module = I3ResNet(tuple(blocks), width)
    if stated.length != module.length or not stated.mean_pooling or stated.z_first:
        bad_model("an i3resnet has arrays xyz and pooling mean", f"length = {module.length}")
    tensors = read_tensors(stated.network, stated.network.name)
    wanted = {n: tuple(t.shape) for n, t in module.state_dict().items() if not n.endswith("num_batches_tracked")}
    check_tensors(tensors, wanted, stated.network.name, ignored=("num_batches_tracked",))
    module.load_state_dict({name: tensors[name].float() for name in wanted}, strict=False)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def _open_onnx(path: Path, settings: SegmentSettings) -> Callable[[Floats], NDArray[Any]]:
    need_package("onnxruntime", extra="onnx", purpose=f"the network {path.name}")
    import onnxruntime  # heavy; only models that are opened need it

    data = path.read_bytes()
    if _EXTERNAL_DATA.search(data):
        message = f"{path.name} reads its weights from other files"
        raise ModelError(Reason.UNSAFE_WEIGHTS, message, "save the model with its weights inside")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4
    refusals: Any = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (given_name,) = [one.name for one in session.get_inputs()]
    except (refusals.Fail, refusals.InvalidProtobuf, refusals.InvalidGraph, refusals.InvalidArgument, ValueError,
            refusals.NotImplemented, refusals.RuntimeException) as error:  # fmt: skip
        raise ModelError(Reason.BAD_MODEL, f"{path.name} is not an ONNX network with one input") from error

    def run(given: Floats) -> NDArray[Any]:
        try:
            (found, *_) = session.run(None, {given_name: given})
        except (refusals.Fail, refusals.InvalidArgument, refusals.RuntimeException) as error:
            raise ModelError(Reason.BAD_MODEL, f"{path.name} cannot take its input: {str(error)[:120]}") from error
        answer: NDArray[Any] = np.asarray(found)
        return answer

    return run
