"""Command sets of DIMSE messages (PS3.7 6.3 and 9.3): those of requests are read, those of responses are written."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["UNRECOGNISED_OPERATION", "Command", "CommandField", "read_command", "response_to"]

UNRECOGNISED_OPERATION = 0x0211
"""Status of a response to a request that is neither C-STORE nor C-ECHO (PS3.7 C.5.22)."""
_RESPONSE = 0x8000
"""Bit of the Command Field that responses have and requests have not."""
_NO_DATA_SET = 0x0101
_GROUP_LENGTH, _SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED = 0x0000, 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _SOP_INSTANCE = 0x0800, 0x0900, 0x1000
"""Elements of the group 0000 (PS3.7 annex E)."""
_ELEMENT = struct.Struct("<HHI")
"""Group, element and length of an element in Implicit VR Little Endian."""
_US = struct.Struct("<H")
_LARGEST_UID = 64


class CommandField(IntEnum):
    """Kinds of requests (PS3.7 table E.1-1)."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF
    """It has no response."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A request, or a response that nothing was asked for."""

    field: int
    """Command Field (0000,0100)."""
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    """Affected SOP Class UID; empty if it is missing or no text of 64 characters or fewer."""
    sop_instance_uid: str
    """Affected SOP Instance UID, likewise."""

    @property
    def wants_response(self) -> bool:
        """Whether it is a request that is answered."""
        return not self.field & _RESPONSE and self.field != CommandField.C_CANCEL


def read_command(data: bytes | bytearray) -> Command:
    """Read a command set.

    Raises
    ------
    ValueError
        If it is none.
    """
    values: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + _ELEMENT.size > len(data):
            raise ValueError("an element of the command set is cut off")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group or at + length > len(data):
            raise ValueError("the command set has an element that does not belong to it, or is cut off")
        values[element] = bytes(data[at : at + length])
        at += length
    return Command(
        field=_number(values, _FIELD),
        message_id=_number(values, _MESSAGE_ID, 0),
        has_data_set=_number(values, _DATA_SET_TYPE) != _NO_DATA_SET,
        sop_class_uid=_uid(values.get(_SOP_CLASS, b"")),
        sop_instance_uid=_uid(values.get(_SOP_INSTANCE, b"")),
    )


def _number(values: dict[int, bytes], element: int, default: int | None = None) -> int:
    data = values.get(element)
    if data is None and default is not None:
        return default
    if data is None or len(data) != _US.size:
        raise ValueError(f"the command set has no number (0000,{element:04X})")
    return int(_US.unpack(data)[0])


def _uid(data: bytes) -> str:
    text = data.rstrip(b"\0 ").decode("ascii", "replace")
    return text if len(text) <= _LARGEST_UID and text.isascii() and text.isprintable() else ""


def response_to(command: Command, status: int) -> bytes:
    """Return the command set of a response without a data set.

    Parameters
    ----------
    command : Command
        The request.
    status : int
        Status (0000,0900).

    Returns
    -------
    bytes
        Implicit VR Little Endian.
    """
    elements = [
        _us(_FIELD, command.field | _RESPONSE),
        _us(_ANSWERED, command.message_id),
        _us(_DATA_SET_TYPE, _NO_DATA_SET),
        _us(_STATUS, status),
    ]
    if command.sop_class_uid:
        elements.insert(0, _ui(_SOP_CLASS, command.sop_class_uid))
    if command.sop_instance_uid:
        elements.append(_ui(_SOP_INSTANCE, command.sop_instance_uid))
    body = b"".join(elements)
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + len(body).to_bytes(4, "little") + body


def _us(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, _US.size) + _US.pack(value)


def _ui(element: int, uid: str) -> bytes:
    data = uid.encode("ascii")
    data += b"\0" * (len(data) % 2)
    return _ELEMENT.pack(0, element, len(data)) + data
