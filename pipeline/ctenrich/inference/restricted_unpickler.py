"""Read a pickle as plain data: numbers, text, containers, numpy arrays, and references to tensors.

A pickle is a program. Only a few of its instructions are allowed here, and the only names it may ask for are in
`_ALLOWED`: each name is replaced by a small function of this module that checks its arguments, never by the object of
that name. Nothing is imported on behalf of a file, and the result shares no object with this program that a file could
change.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ModelError
from ctenrich.reasons import Reason

__all__ = ["ITEM_SIZE", "MAX_PICKLE", "Storage", "TensorRef", "load_pickle_restricted", "realise", "refuse", "unpickle"]

MAX_PICKLE = 256 * 1024**2
_STORAGES = {
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
ITEM_SIZE = {"bfloat16": 2, "bool": 1, "uint8": 1, "int8": 1, "float64": 8, "float32": 4, "float16": 2}
ITEM_SIZE |= {"int32": 4, "int64": 8, "int16": 2}
_DTYPE_KINDS = frozenset("biufcSU")
_OPCODES = frozenset(
    (
        *("PROTO", "STOP", "FRAME", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET"),
        *("BINGET", "LONG_BINGET", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
        *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "LIST"),
        *("APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM"),
        *("SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    )
)


def refuse(what: str) -> NoReturn:
    """Refuse a file that asks for `what`.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS, always.
    """
    raise ModelError(Reason.UNSAFE_WEIGHTS, f"the weights ask for {what}, which is not plain data")


# ---------------------------------------------------------------- objects that a pickle may build


class _PlainDict(dict[Any, Any]):
    """Replaces OrderedDict and defaultdict; attributes that a pickle sets are dropped."""

    def __setstate__(self, state: object) -> None:
        return None


class _AllowedCall:
    """A name that a pickle may call; it cannot be changed by the pickle."""

    __slots__ = ("_call", "name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        refuse(f"a change of {self.name}")


@dataclass(frozen=True)
class Storage:
    """A run of bytes that holds the numbers of tensors: its key in the file, type and count of its items."""

    key: str
    dtype: str
    numel: int

    def __setstate__(self, state: object) -> None:
        refuse("a change of a storage")


@dataclass(frozen=True)
class TensorRef:
    """A tensor that has not been read yet: a window of a storage, checked to be inside it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """Attributes of a tensor (hooks and the like) are dropped."""


class _NumpyDtype:
    """A numpy dtype in the making: kind and size from the name, byte order from the state."""

    def __init__(self, text: object, *_: object) -> None:
        if not isinstance(text, str):
            refuse("a structured dtype")
        try:
            self.dtype = np.dtype(text)
        except (TypeError, ValueError):
            refuse("an unknown dtype")
        if self.dtype.kind not in _DTYPE_KINDS or self.dtype.hasobject:
            refuse(f"the dtype {text!r}")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            refuse("a structured dtype")
        if state[1] in {"<", ">"}:
            self.dtype = self.dtype.newbyteorder(state[1])


class _NumpyArray:
    """A numpy array in the making; `array` exists once the pickle has given its state."""

    array: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            refuse("a malformed array")
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _NumpyDtype) or not isinstance(raw, bytes | bytearray) or not _is_shape(shape):
            refuse("an array of objects")
        if int(np.prod(shape, dtype=object)) * dtype.dtype.itemsize != len(raw):
            refuse("an array whose size is not its shape's")
        self.array = np.frombuffer(bytes(raw), dtype.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and all(type(v) is int and v >= 0 for v in value)


def _numpy_scalar(dtype: object, raw: object = None) -> Any:
    if not isinstance(dtype, _NumpyDtype) or not isinstance(raw, bytes) or len(raw) != dtype.dtype.itemsize:
        refuse("a malformed numpy number")
    return np.frombuffer(raw, dtype.dtype)[0]


def _encode_latin1(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        refuse("a text encoding")
    return text.encode("latin1")


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorRef:
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
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


def _ordered_dict(items: object = ()) -> _PlainDict:
    if not isinstance(items, list | tuple | dict):
        refuse("a malformed dictionary")
    return _PlainDict(items)


def _plain_container(cls: type) -> Callable[..., Any]:
    def make(items: object = ()) -> Any:
        if not isinstance(items, list | tuple):
            refuse(f"a malformed {cls.__name__}")
        return cls(items)

    return make


def _torch_device(*args: object) -> str:
    return ":".join(str(a) for a in args if isinstance(a, str | int))


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): lambda *_: _PlainDict(),
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
    ("numpy", "dtype"): _NumpyDtype,
    ("numpy", "ndarray"): lambda *_: refuse("a bare array"),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_module, "scalar"] = _numpy_scalar
    _ALLOWED[_module, "_reconstruct"] = lambda *_: _NumpyArray()
for _name in _STORAGES:
    _ALLOWED["torch", _name] = lambda *_: refuse("a bare storage")
for _name in ITEM_SIZE:
    _ALLOWED["torch", _name] = lambda *_: refuse("a call of a dtype")


# ---------------------------------------------------------------- reading one pickle


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves only `_ALLOWED`, and returns stand-ins."""

    def find_class(self, module: str, name: str, /) -> Any:
        call = _ALLOWED.get((module, name))
        if call is None:
            refuse(f"{module}.{name}"[:120])
        return _AllowedCall(f"{module}.{name}", call)

    def persistent_load(self, pid: Any, /) -> Storage:
        kind = pid[1] if isinstance(pid, tuple) and len(pid) in {5, 6} and pid[0] == "storage" else None
        if not isinstance(kind, _AllowedCall) or kind.name.rpartition(".")[2] not in _STORAGES:
            refuse("a malformed storage")
        key, numel = pid[2], pid[4]
        if not isinstance(key, str) or type(numel) is not int or numel < 0 or (len(pid) == 6 and pid[5] is not None):
            refuse("a malformed storage")
        return Storage(key, _STORAGES[kind.name.rpartition(".")[2]], numel)


def unpickle(data: bytes) -> tuple[Any, int]:
    """Read the pickle at the start of `data`.

    Returns
    -------
    object
        With stand-ins for tensors, arrays and dtypes; see `realise`.
    int
        Length of the pickle in bytes.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS if the pickle asks for anything that is not plain data; BAD_MODEL if it is malformed.
    """
    end = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if opcode.name not in _OPCODES:
                refuse(f"the pickle instruction {opcode.name}")
            if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"} and not 0 <= int(argument or 0) <= count:
                refuse("a memo slot out of range")
            end = (position or 0) + 1
        return _Unpickler(io.BytesIO(data[:end]), encoding="latin1").load(), end
    except ModelError:
        raise
    except RecursionError:
        refuse("data that are nested too deeply")
    except Exception as error:  # noqa: BLE001  a broken pickle can fail in any way; every failure becomes a ModelError
        raise ModelError(Reason.BAD_MODEL, f"a pickle cannot be read: {type(error).__name__}") from None


def load_pickle_restricted(path: Path) -> Any:
    """Plain data of a ``.pkl`` file (such as nnU-Net v1's plans.pkl): numbers, text, containers, numpy arrays.

    Raises
    ------
    ModelError
        UNSAFE_WEIGHTS if it asks for anything else; BAD_MODEL if it is no pickle.
    """
    if path.stat().st_size > MAX_PICKLE:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} is larger than a pickle of plain data should be")
    value, _ = unpickle(path.read_bytes())
    return realise(value, lambda _: refuse("a tensor"))


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
    if depth > 100:
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
    if isinstance(value, _NumpyArray) and value.array is not None:
        return value.array
    if isinstance(value, _NumpyDtype):
        return value.dtype.str
    if isinstance(value, _AllowedCall) and value.name.startswith("torch.") and value.name[6:] in ITEM_SIZE:
        return value.name[6:]
    return refuse(f"a {type(value).__name__.strip('_').lower()}")
