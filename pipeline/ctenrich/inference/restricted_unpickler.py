"""Read a pickle as plain data: numbers, text, containers, numpy arrays, and references to tensors.

A pickle is a program. It is run here by an interpreter of our own, one instruction at a time: only a few instructions
are allowed, and the only names it may ask for are in `_ALLOWED`, where each name is replaced by a small function of
this module that checks its arguments. Nothing is imported on behalf of a file. Every instruction and every copy is
charged to a budget of memory before it is made, keys and members of sets are plain values, and an interrupt by the user
takes effect between any two instructions.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ModelError
from ctenrich.reasons import Reason

__all__ = ["ITEM_SIZE", "MAX_PICKLE", "Storage", "TensorRef", "load_pickle_restricted", "realise", "refuse", "unpickle"]

MAX_PICKLE = 256 * 1024**2
"""Bytes of the largest pickle that is read."""
_MAX_MEMORY = 512 * 1024**2
"""Bytes that the objects of one pickle may take, estimated from below; 1000 epochs of nnU-Net's log take 240 MB."""
_MAX_DEPTH = 100
_MAX_DIMENSIONS = 32
_MAX_NAME = 200
_STEP_COST, _LIST_COST, _DICT_COST, _ENTRY_COST = 64, 96, 192, 100
"""Bytes charged for an instruction, a list or tuple, a dictionary or set, an entry of either or of the memo."""
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

    __slots__ = ()

    def set_state(self, state: object) -> None:
        """Drop the attributes."""


class _AllowedCall:
    """A name that a pickle may call; it cannot be changed by the pickle."""

    __slots__ = ("_call", "name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self._call = call

    def __call__(self, *args: Any) -> Any:
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


class _NumpyDtype:
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


class _NumpyArray:
    """A numpy array in the making; `array` exists once the pickle has given its state."""

    array: NDArray[Any] | None = None

    def set_state(self, state: object) -> None:
        """Take shape, dtype and bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            refuse("a malformed array")
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _NumpyDtype) or not isinstance(raw, bytes | bytearray) or not _is_shape(shape):
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
    if not isinstance(dtype, _NumpyDtype) or not isinstance(raw, bytes) or len(raw) != dtype.dtype.itemsize:
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


def _ordered_dict(items: object = ()) -> _PlainDict:
    if isinstance(items, dict):
        return _PlainDict(items)
    if not isinstance(items, list | tuple):
        refuse("a malformed dictionary")
    out = _PlainDict()
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            refuse("a malformed dictionary")
        out[_checked_key(item[0])] = item[1]
    return out


def _plain_container(cls: type) -> Callable[..., Any]:
    def make(items: object = ()) -> Any:
        if not isinstance(items, list | tuple):
            refuse(f"a malformed {cls.__name__}")
        return cls(map(_checked_key, items)) if cls in (set, frozenset) else cls(items)

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


def _checked_key(key: Any) -> Any:
    """Return a key or a member of a set: a plain value, whose hash costs nothing and collides with few others."""
    members = key if type(key) is tuple and len(key) <= _MAX_DIMENSIONS else (key,)
    for value in members:
        whole = type(value) is int and value.bit_length() <= 64
        if not (whole or value is None or isinstance(value, bool | float | str | bytes | np.integer)):
            refuse("a key that is not a plain value")
    return key


# ---------------------------------------------------------------- running one pickle


class _Machine:
    """Stack, memo and budget of the pickle that is run."""

    def __init__(self) -> None:
        self.memory = 0
        self.stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> tuple[Any, int]:
        """Run the pickle at the start of `data`; return its value and its length."""
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            name = opcode.name
            self.charge(_STEP_COST)
            if name == "STOP":
                return self.stack.pop(), (position or 0) + 1
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                if isinstance(argument, str | bytes):
                    self.charge(len(argument))
                self.stack.append(argument)
            elif name in _MEMORISE:
                self._memorise(len(self._memo) if argument is None else argument, count)
            else:
                step = _STEPS.get(name)
                if step is None:
                    refuse(f"the pickle instruction {name}")
                step(self, argument)
        raise EOFError

    def charge(self, size: int) -> None:
        """Count bytes against the budget.

        Raises
        ------
        ModelError
            UNSAFE_WEIGHTS if it is spent.
        """
        self.memory += size
        if self.memory > _MAX_MEMORY:
            message = f"the plain values of the weights need more than {_MAX_MEMORY >> 20} MB"
            raise ModelError(Reason.UNSAFE_WEIGHTS, message)

    def _memorise(self, slot: Any, count: int) -> None:
        if not 0 <= int(slot) <= count:
            refuse("a memo slot out of range")
        self.charge(_ENTRY_COST)
        self._memo[int(slot)] = self.stack[-1]

    def recall(self, slot: Any) -> None:
        """Push an object of the memo."""
        self.stack.append(self._memo[int(slot)])

    def mark(self, _: object) -> None:
        """Begin a group of objects."""
        self.charge(_LIST_COST)
        self._marked.append(self.stack)
        self.stack = []

    def pop_mark(self, _: object = None) -> list[Any]:
        """End the group; return its objects."""
        group, self.stack = self.stack, self._marked.pop()
        return group

    def pop(self, _: object) -> None:
        """Drop the topmost object, or the mark if there is none above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def push_copy(self, _: object) -> None:
        """Push the topmost object again."""
        self.stack.append(self.stack[-1])

    def push_container(self, kind: type, items: Sequence[Any]) -> None:
        """Push a list, tuple or set of `items`."""
        hashed = kind in (set, frozenset)
        self.charge(_DICT_COST + _ENTRY_COST * len(items) if hashed else _LIST_COST + 8 * len(items))
        self.stack.append(kind(map(_checked_key, items)) if hashed else kind(items))

    def push_dict(self, items: Sequence[Any]) -> None:
        """Push a dictionary of keys and values in turn."""
        self.charge(_DICT_COST)
        self.stack.append({})
        self.set_items(items)

    def push_tuple_of(self, count: int) -> None:
        """Push the topmost objects as a tuple."""
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        self.push_container(tuple, items)

    def append(self, items: Sequence[Any]) -> None:
        """Append to the topmost object, a list."""
        target = self.stack[-1]
        if type(target) is not list:
            refuse("items of something that is no list")
        self.charge(8 * len(items))
        target.extend(items)

    def set_items(self, items: Sequence[Any]) -> None:
        """Set keys and values, in turn, of the topmost object, a dictionary."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            refuse("keys of something that is no dictionary")
        self.charge(_ENTRY_COST * (len(items) // 2))
        for index in range(0, len(items), 2):
            target[_checked_key(items[index])] = items[index + 1]

    def add_items(self, items: Sequence[Any]) -> None:
        """Add to the topmost object, a set."""
        target = self.stack[-1]
        if type(target) is not set:
            refuse("members of something that is no set")
        self.charge(_ENTRY_COST * len(items))
        target.update(map(_checked_key, items))

    def find_name(self, module: object, name: object) -> None:
        """Push the stand-in of a name."""
        call = _ALLOWED.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if call is None:
            refuse(f"{module}.{name}"[:_MAX_NAME])
        self.stack.append(_AllowedCall(f"{module}.{name}", call))

    def call(self, _: object) -> None:
        """Call a stand-in with the topmost object, a tuple; what it copies is charged before."""
        arguments = self.stack.pop()
        call = self.stack.pop()
        if not isinstance(call, _AllowedCall) or type(arguments) is not tuple:
            refuse("a call of something that is no function")
        self.charge(_DICT_COST + sum(map(_copy_cost, arguments)))
        self.stack.append(call(*arguments))

    def build(self, _: object) -> None:
        """Give the state that is topmost to the object below it."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _PlainDict | _AllowedCall | Storage | TensorRef | _NumpyDtype | _NumpyArray):
            refuse("attributes of a plain value")
        if isinstance(state, tuple):
            self.charge(2 * sum(map(_copy_cost, state)))
        target.set_state(state)

    def find_storage(self, _: object) -> None:
        """Push the storage that the topmost object identifies."""
        pid = self.stack.pop()
        kind = pid[1] if isinstance(pid, tuple) and len(pid) in {5, 6} and pid[0] == "storage" else None
        if not isinstance(kind, _AllowedCall) or kind.name.rpartition(".")[2] not in _STORAGES:
            refuse("a malformed storage")
        key, numel = pid[2], pid[4]
        if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**48:
            refuse("a malformed storage")
        if len(pid) == 6 and pid[5] is not None:
            refuse("a malformed storage")
        self.charge(_DICT_COST)
        self.stack.append(Storage(key, _STORAGES[kind.name.rpartition(".")[2]], numel))


def _copy_cost(value: object) -> int:
    """Bytes that a copy of a value takes."""
    if isinstance(value, dict | set | frozenset):
        return _ENTRY_COST * len(value)
    if isinstance(value, list | tuple):
        return _STEP_COST * len(value)
    return len(value) if isinstance(value, str | bytes) else 0


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
        *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        "BINUNICODE8",
    )
)
_MEMORISE = frozenset(("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"))
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.push_copy,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "EMPTY_LIST": lambda machine, _: machine.push_container(list, ()),
    "EMPTY_TUPLE": lambda machine, _: machine.push_container(tuple, ()),
    "EMPTY_SET": lambda machine, _: machine.push_container(set, ()),
    "EMPTY_DICT": lambda machine, _: machine.push_dict(()),
    "LIST": lambda machine, _: machine.push_container(list, machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push_container(tuple, machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.push_container(frozenset, machine.pop_mark()),
    "DICT": lambda machine, _: machine.push_dict(machine.pop_mark()),
    "TUPLE1": lambda machine, _: machine.push_tuple_of(1),
    "TUPLE2": lambda machine, _: machine.push_tuple_of(2),
    "TUPLE3": lambda machine, _: machine.push_tuple_of(3),
    "APPEND": lambda machine, _: machine.append((machine.stack.pop(),)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items((machine.stack.pop(-2), machine.stack.pop())),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.pop_mark()),
    "GLOBAL": lambda machine, argument: machine.find_name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find_name(machine.stack.pop(-2), machine.stack.pop()),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.find_storage,
}


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
        UNSAFE_WEIGHTS if the pickle asks for anything that is not plain data, or for more memory than plain data need;
        BAD_MODEL if it is malformed.
    """
    try:
        with warnings.catch_warnings():  # Python warns of escape sequences in texts
            warnings.simplefilter("ignore")
            return _Machine().run(data)
    except ModelError:
        raise
    except MemoryError:
        raise ModelError(Reason.UNSAFE_WEIGHTS, "the weights need more memory than there is") from None
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
    if isinstance(value, _NumpyArray) and value.array is not None:
        return value.array
    if isinstance(value, _NumpyDtype):
        return value.dtype.str
    if isinstance(value, _AllowedCall) and value.name.startswith("torch.") and value.name[6:] in ITEM_SIZE:
        return value.name[6:]
    return refuse(f"a {type(value).__name__.strip('_').lower()}")
