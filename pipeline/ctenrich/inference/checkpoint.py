"""Read files written by ``torch.save`` as plain data, without torch's own loader.

Both formats of torch are read: the zip format, and the one before torch 1.6 that many nnU-Net v1 weights have. The
pickle inside goes through :mod:`ctenrich.inference.restricted_unpickler`; storages are taken as bytes, and tensors are
built from them with their bounds checked. Storages together are no larger than the file, and tensors together no larger
than `_MAX_VIEWS` times their storages.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import ModelError
from ctenrich.inference.plain_objects import ITEM_SIZE, Storage, TensorRef, realise, refuse
from ctenrich.inference.restricted_unpickler import MAX_PICKLE, unpickle
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import torch

__all__ = ["load_restricted", "load_state_dict_restricted"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_VIEWS = 8
"""Times that the tensors may repeat the bytes of their storages; nnU-Net v2 lists every weight up to four times."""
_MAX_TENSORS = 100_000


def load_restricted(path: Path, *, only: Collection[str] | None = None) -> Any:
    """Read a file that ``torch.save`` wrote, as plain data.

    Parameters
    ----------
    path : Path
        The file, in torch's zip format or in the one before torch 1.6.
    only : collection of str, optional
        Top-level keys that are wanted; the tensors of others are not even read (optimiser state).

    Returns
    -------
    object
        Dictionaries, lists, tuples, numbers, text, numpy arrays and `torch.Tensor` on the CPU.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS if the file asks for anything that is not plain data; BAD_MODEL if it is no checkpoint.
    """
    try:
        value, read = _open_zip(path) if zipfile.is_zipfile(path) else _open_legacy(path)
        if only is not None and isinstance(value, dict):
            value = {key: value[key] for key in value if key in only}
        return realise(value, _TensorBuilder(read, path.stat().st_size))
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise ModelError(Reason.UNSAFE_WEIGHTS, f"{path.name} needs more memory than there is") from error
    except Exception as error:  # zipfile and torch raise many kinds for broken files
        message = f"{path.name} is not a torch checkpoint ({type(error).__name__})"
        raise ModelError(Reason.BAD_MODEL, message) from error


def load_state_dict_restricted(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict (names -> tensors) and nothing else.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS, or BAD_MODEL if the file is not a flat dictionary of tensors.
    """
    import torch

    state = load_restricted(path)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} does not contain a state dict")
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise ModelError(Reason.BAD_MODEL, f"{path.name} contains more than named tensors")
    return dict(state)


_Reader = Callable[[Storage], bytes]


def _open_zip(path: Path) -> tuple[Any, _Reader]:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1 or any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise ModelError(Reason.BAD_MODEL, f"{path.name} is not a torch checkpoint")
    if sum(info.file_size for info in entries.values()) > path.stat().st_size:
        raise ModelError(Reason.UNSAFE_WEIGHTS, f"{path.name} contains entries that overlap")
    prefix = pickles[0].removesuffix("data.pkl")
    if entries[pickles[0]].file_size > MAX_PICKLE:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} contains a pickle that is too large")

    def read_entry(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    if f"{prefix}byteorder" in entries and read_entry(f"{prefix}byteorder").strip() != b"little":
        raise ModelError(Reason.BAD_MODEL, f"{path.name} was written on a big-endian machine")

    def read(storage: Storage) -> bytes:
        name = f"{prefix}data/{storage.key}"
        if entries[name].file_size != storage.numel * ITEM_SIZE[storage.dtype]:
            raise ModelError(Reason.BAD_MODEL, f"{path.name} contains a storage whose size differs from its entry")
        return read_entry(name)

    value, _ = unpickle(read_entry(pickles[0]))
    return value, read


def _open_legacy(path: Path) -> tuple[Any, _Reader]:
    """Magic number, protocol, machine, the object, the storages' keys: five pickles; then the storages' bytes."""
    with path.open("rb") as handle:
        head = handle.read(MAX_PICKLE)
    parts: list[Any] = []
    position = 0
    for _ in range(5):
        value, length = unpickle(head[position:])
        parts.append(value)
        position += length
        if parts[0] != _LEGACY_MAGIC:
            raise ModelError(Reason.BAD_MODEL, f"{path.name} is not a torch checkpoint")
    if parts[1] != _LEGACY_PROTOCOL or not isinstance(parts[2], dict) or not parts[2].get("little_endian"):
        raise ModelError(Reason.BAD_MODEL, f"{path.name} was written by an unknown version of torch")
    sizes = _storage_sizes(parts[3])
    if sum(sizes.values()) > path.stat().st_size:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} is shorter than its header states")
    places: dict[str, int] = {}
    for key in parts[4]:
        if key not in sizes:
            raise ModelError(Reason.BAD_MODEL, f"{path.name} contains a storage that no tensor uses")
        places[key] = position
        position += 8 + sizes[key]

    def read(storage: Storage) -> bytes:
        with path.open("rb") as handle:
            handle.seek(places[storage.key])
            count = int.from_bytes(handle.read(8), "little")
            raw = handle.read(storage.numel * ITEM_SIZE[storage.dtype])
        if count != storage.numel or len(raw) != storage.numel * ITEM_SIZE[storage.dtype]:
            raise ModelError(Reason.BAD_MODEL, f"{path.name} is shorter than its header states")
        return raw

    return parts[3], read


def _storage_sizes(value: Any) -> dict[str, int]:
    sizes: dict[str, int] = {}

    def note(ref: TensorRef) -> None:
        sizes[ref.storage.key] = ref.storage.numel * ITEM_SIZE[ref.storage.dtype]

    realise(value, note)
    return sizes


class _TensorBuilder:
    """Makes the tensors of one file, within a budget of bytes.

    Parameters
    ----------
    read : callable
        Reads the bytes of a storage.
    size : int
        Bytes of the file.
    """

    def __init__(self, read: _Reader, size: int) -> None:
        self._read = read
        self._storages: dict[str, torch.Tensor] = {}
        self._left = _MAX_VIEWS * size
        self._count = 0

    def __call__(self, ref: TensorRef) -> torch.Tensor:
        """A tensor with its own memory."""
        import torch  # slow to import

        storage = ref.storage
        self._count += 1
        self._left -= math.prod(ref.size) * ITEM_SIZE[storage.dtype]
        if self._count > _MAX_TENSORS or self._left < 0:
            message = f"the weights repeat the same numbers more than {_MAX_VIEWS} times, or in too many tensors"
            raise ModelError(Reason.UNSAFE_WEIGHTS, message)
        dtype: torch.dtype = getattr(torch, storage.dtype)
        if storage.key not in self._storages:
            raw = bytearray(self._read(storage))
            self._storages[storage.key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        flat = self._storages[storage.key]
        if flat.dtype is not dtype or flat.numel() != storage.numel:
            refuse("one storage as two types")
        view = torch.as_strided(flat, ref.size, ref.stride, ref.offset)
        return view.clone(memory_format=torch.contiguous_format)
