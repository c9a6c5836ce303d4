"""Stand-ins for the objects that a restricted pickle may build, and their copy as plain data.

A name that a pickle asks for is one of `ALLOWED`, where it is replaced by a small function of this module that checks
its arguments. Nothing is imported on behalf of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ModelError
from ctenrich.reasons import Reason

__all__ = [
    "ALLOWED",
    "ITEM_SIZE",
    "STORAGES",
    "AllowedCall",
    "NumpyArray",
    "NumpyDtype",
    "PlainDict",
    "Storage",
    "TensorRef",
    "checked_key",
    "realise",
    "refuse",
]

_MAX_DEPTH = 100
_MAX_DIMENSIONS = 32
STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
"""Name of a storage class of torch -> type of its items."""
ITEM_SIZE = {"bfloat16": 2, "bool": 1, "uint8": 1, "int8": 1, "float64": 8, "float32": 4, "float16": 2}
ITEM_SIZE |= {"int32": 4, "int64": 8, "int16": 2}
"""Type of an item -> bytes."""
_DTYPE_KINDS = frozenset("biufcSU")


def refuse(what: str) -> NoReturn:
    """Refuse a file that asks for `what`.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS, always.
    """
    raise ModelError(Reason.UNSAFE_WEIGHTS, f"the weights ask for {what}, which is not plain data")


class PlainDict(dict[Any, Any]):
    """Replaces OrderedDict and defaultdict; attributes that a pickle sets are dropped."""

    __slots__ = ()

    def set_state(self, state: object) -> None:
        """Drop the attributes."""


class AllowedCall:
    """A name that a pickle may call; it cannot be changed by the pickle."""

    __slots__ = ("_call", "name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self._call = call

    def __call__(self, *args: Any) -> Any:
        """Call the stand-in."""
        return self._call(*args)

    def set_state(self, state: object) -> None:
        """Refuse."""
        refuse(f"a change of {self.name}")


@dataclass(frozen=True)
class Storage:
    """A run of bytes that holds the numbers of tensors: its key in the file, type and count of its items."""

    key: str
    dtype: str
    numel: int

    def set_state(self, state: object) -> None:
        """Refuse."""
        refuse("a change of a storage")


@dataclass(frozen=True)
class TensorRef:
    """A tensor that has not been read yet: a window of a storage, checked to be inside it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def set_state(self, state: object) -> None:
        """Drop the attributes of a tensor (hooks and the like)."""


class NumpyDtype:
    """A numpy dtype in the making: kind and size from the name, byte order from the state."""

    def __init__(self, text: object, *_: object) -> None:
        if not isinstance(text, str) or len(text) > 16:
            refuse("a structured dtype")
        try:
            self.dtype = np.dtype(text)
        except (TypeError, ValueError):
            refuse("an unknown dtype")
        if self.dtype.kind not in _DTYPE_KINDS or self.dtype.hasobject:
            refuse(f"the dtype {text!r}")

    def set_state(self, state: object) -> None:
        """Take the byte order."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            refuse("a structured dtype")
        if state[1] == "<":
            self.dtype = self.dtype.newbyteorder("<")
        elif state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class NumpyArray:
    """A numpy array in the making; `array` exists once the pickle has given its state."""

    array: NDArray[Any] | None = None

    def set_state(self, state: object) -> None:
        """Take shape, dtype and bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            refuse("a malformed array")
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, NumpyDtype) or not isinstance(raw, bytes | bytearray) or not _is_shape(shape):
            refuse("an array of objects")
        if int(np.prod(shape, dtype=object)) * dtype.dtype.itemsize != len(raw):
            refuse("an array whose size is not its shape's")
        self.array = np.frombuffer(bytes(raw), dtype.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _is_shape(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= _MAX_DIMENSIONS
        and all(type(v) is int and 0 <= v < 2**48 for v in value)
    )


def _numpy_scalar(dtype: object, raw: object = None) -> Any:
    if not isinstance(dtype, NumpyDtype) or not isinstance(raw, bytes) or len(raw) != dtype.dtype.itemsize:
        refuse("a malformed numpy number")
    return np.frombuffer(raw, dtype.dtype)[0]


def _encode_latin1(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        refuse("a text encoding")
    return text.encode("latin1")


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorRef:
    if not isinstance(storage, Storage) or type(offset) is not int or not 0 <= offset < 2**48:
        refuse("a tensor without a storage")
    if not (_is_shape(size) and _is_shape(stride)):
        refuse("a tensor of a malformed shape")
    assert isinstance(size, tuple)
    assert isinstance(stride, tuple)
    count = int(np.prod(size, dtype=object)) if size else 1
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=False)) if count else offset - 1
    if len(size) != len(stride) or count > storage.numel or last >= storage.numel:
        refuse("a tensor outside its storage")
    return TensorRef(storage, offset, size, stride)


def _torch_parameter(data: object, *_: object) -> TensorRef:
    if not isinstance(data, TensorRef):
        refuse("a parameter without a tensor")
    return data


def _ordered_dict(items: object = ()) -> PlainDict:
    if isinstance(items, dict):
        return PlainDict(items)
    if not isinstance(items, list | tuple):
        refuse("a malformed dictionary")
    out = PlainDict()
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            refuse("a malformed dictionary")
        out[checked_key(item[0])] = item[1]
    return out


def _plain_container(cls: type) -> Callable[..., Any]:
    def make(items: object = ()) -> Any:
        if not isinstance(items, list | tuple):
            refuse(f"a malformed {cls.__name__}")
        return cls(map(checked_key, items)) if cls in (set, frozenset) else cls(items)

    return make


def _torch_device(*args: object) -> str:
    return ":".join(str(a) for a in args if isinstance(a, str | int))


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): lambda *_: PlainDict(),
    ("builtins", "set"): _plain_container(set),
    ("__builtin__", "set"): _plain_container(set),
    ("builtins", "list"): _plain_container(list),
    ("__builtin__", "list"): _plain_container(list),
    ("builtins", "frozenset"): _plain_container(frozenset),
    ("_codecs", "encode"): _encode_latin1,
    ("torch", "Size"): _plain_container(tuple),
    ("torch", "device"): _torch_device,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _torch_parameter,
    ("numpy", "dtype"): NumpyDtype,
    ("numpy", "ndarray"): lambda *_: refuse("a bare array"),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED[_module, "scalar"] = _numpy_scalar
    ALLOWED[_module, "_reconstruct"] = lambda *_: NumpyArray()
for _name in STORAGES:
    ALLOWED["torch", _name] = lambda *_: refuse("a bare storage")
for _name in ITEM_SIZE:
    ALLOWED["torch", _name] = lambda *_: refuse("a call of a dtype")


def checked_key(key: Any) -> Any:
    """Return a key or a member of a set: a plain value, whose hash costs nothing and collides with few others."""
    members = key if type(key) is tuple and len(key) <= _MAX_DIMENSIONS else (key,)
    for value in members:
        whole = type(value) is int and value.bit_length() <= 64
        if not (whole or value is None or isinstance(value, bool | float | str | bytes | np.integer)):
            refuse("a key that is not a plain value")
    return key


# ---------------------------------------------------------------- plain data


def realise(value: Any, tensor: Callable[[TensorRef], Any]) -> Any:
    """Copy a value with its stand-ins replaced; anything that is not plain data is refused.

    Parameters
    ----------
    value : object
        From `unpickle`.
    tensor : callable
        Makes a tensor of a TensorRef.

    Returns
    -------
    object

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS.
    """
    return _realise_value(value, tensor, {}, 0)


def _realise_value(value: Any, tensor: Callable[[TensorRef], Any], done: dict[int, Any], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        refuse("data that are nested too deeply")
    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
        return value
    if id(value) not in done:
        done[id(value)] = _realise_container(value, tensor, done, depth + 1)
    return done[id(value)]


def _realise_container(value: Any, tensor: Callable[[TensorRef], Any], done: dict[int, Any], depth: int) -> Any:
    if isinstance(value, dict):
        return {
            _realise_value(k, tensor, done, depth): _realise_value(v, tensor, done, depth) for k, v in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_realise_value(v, tensor, done, depth) for v in value)
    if isinstance(value, TensorRef):
        return tensor(value)
    if isinstance(value, NumpyArray) and value.array is not None:
        return value.array
    if isinstance(value, NumpyDtype):
        return value.dtype.str
    if isinstance(value, AllowedCall) and value.name.startswith("torch.") and value.name[6:] in ITEM_SIZE:
        return value.name[6:]
    return refuse(f"a {type(value).__name__.strip('_').lower()}")
