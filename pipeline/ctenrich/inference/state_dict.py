"""Read a pickled state dict through a child process that converts it once to safetensors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import ModelError
from ctenrich.inference.checkpoint import load_state_dict_restricted
from ctenrich.inference.isolation import run_isolated, serve_isolated
from ctenrich.inference.registry import models_home
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

if TYPE_CHECKING:
    import torch

__all__ = ["load_state_dict"]


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a file with named tensors and nothing else: safetensors as it is, any other as a file of torch.

    A file of torch is converted to ``models_home()/converted/HASH/state_dict.safetensors`` when it is read for the
    first time, or when the converted file has changed.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS, or BAD_MODEL if the file is not a flat dictionary of tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # imports torch

    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(Reason.BAD_MODEL, f"{path.name} is not a safetensors file") from error
    folder = models_home() / "converted" / f"state-dict-{sha256_of_file(path)[:32]}"
    if not _is_unchanged(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as staging:
            request = {"path": str(path.resolve()), "staging": staging}
            run_isolated("ctenrich.inference.state_dict", request, input_bytes=path.stat().st_size)
            folder.mkdir(exist_ok=True)
            for name in (_WEIGHTS, _RECORD):
                Path(staging, name).replace(folder / name)
    return load_file(folder / _WEIGHTS)


_WEIGHTS, _RECORD = "state_dict.safetensors", "state_dict.json"


def _is_unchanged(folder: Path) -> bool:
    try:
        wanted = json.loads((folder / _RECORD).read_text("utf-8"))["sha256"]
        return bool(sha256_of_file(folder / _WEIGHTS) == wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _convert_request(request: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file  # imports torch

    staging = Path(request["staging"])
    save_file(load_state_dict_restricted(Path(request["path"])), staging / _WEIGHTS)
    (staging / _RECORD).write_text(json.dumps({"sha256": sha256_of_file(staging / _WEIGHTS)}), "utf-8")


if __name__ == "__main__":
    import safetensors.torch  # noqa: F401  before the limits are set: torch takes more memory than a model may

    serve_isolated(_convert_request)
