"""Read a pickle as plain data: numbers, text, containers, numpy arrays, and references to tensors.

A pickle is a program. It is run here by an interpreter of our own, one instruction at a time: only a few instructions
are allowed, and the only names it may ask for are those of :mod:`ctenrich.inference.plain_objects`. Every instruction
and every copy is charged to a budget of memory before it is made, keys and members of sets are plain values, and an
interrupt by the user takes effect between any two instructions.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.inference.plain_objects import (
    ALLOWED,
    STORAGES,
    AllowedCall,
    NumpyArray,
    NumpyDtype,
    PlainDict,
    Storage,
    TensorRef,
    checked_key,
    realise,
    refuse,
)
from ctenrich.reasons import Reason

__all__ = ["MAX_PICKLE", "load_pickle_restricted", "unpickle"]

MAX_PICKLE = 256 * 1024**2
"""Bytes of the largest pickle that is read."""
_MAX_MEMORY = 512 * 1024**2
"""Bytes that the objects of one pickle may take, estimated from below; 1000 epochs of nnU-Net's log take 240 MB."""
_MAX_NAME = 200
_STEP_COST, _LIST_COST, _DICT_COST, _ENTRY_COST = 64, 96, 192, 100
"""Bytes charged for an instruction, a list or tuple, a dictionary or set, an entry of either or of the memo."""


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
        self.stack.append(kind(map(checked_key, items)) if hashed else kind(items))

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
            target[checked_key(items[index])] = items[index + 1]

    def add_items(self, items: Sequence[Any]) -> None:
        """Add to the topmost object, a set."""
        target = self.stack[-1]
        if type(target) is not set:
            refuse("members of something that is no set")
        self.charge(_ENTRY_COST * len(items))
        target.update(map(checked_key, items))

    def find_name(self, module: object, name: object) -> None:
        """Push the stand-in of a name."""
        call = ALLOWED.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if call is None:
            refuse(f"{module}.{name}"[:_MAX_NAME])
        self.stack.append(AllowedCall(f"{module}.{name}", call))

    def call(self, _: object) -> None:
        """Call a stand-in with the topmost object, a tuple; what it copies is charged before."""
        arguments = self.stack.pop()
        call = self.stack.pop()
        if not isinstance(call, AllowedCall) or type(arguments) is not tuple:
            refuse("a call of something that is no function")
        self.charge(_DICT_COST + sum(map(_copy_cost, arguments)))
        self.stack.append(call(*arguments))

    def build(self, _: object) -> None:
        """Give the state that is topmost to the object below it."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, PlainDict | AllowedCall | Storage | TensorRef | NumpyDtype | NumpyArray):
            refuse("attributes of a plain value")
        if isinstance(state, tuple):
            self.charge(2 * sum(map(_copy_cost, state)))
        target.set_state(state)

    def find_storage(self, _: object) -> None:
        """Push the storage that the topmost object identifies."""
        pid = self.stack.pop()
        kind = pid[1] if isinstance(pid, tuple) and len(pid) in {5, 6} and pid[0] == "storage" else None
        if not isinstance(kind, AllowedCall) or kind.name.rpartition(".")[2] not in STORAGES:
            refuse("a malformed storage")
        key, numel = pid[2], pid[4]
        if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**48:
            refuse("a malformed storage")
        if len(pid) == 6 and pid[5] is not None:
            refuse("a malformed storage")
        self.charge(_DICT_COST)
        self.stack.append(Storage(key, STORAGES[kind.name.rpartition(".")[2]], numel))


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
