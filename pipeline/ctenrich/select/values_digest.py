"""A hash of all values of an Arrow table, computed on its buffers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ValuesDigest"]


class ValuesDigest:
    """SHA-256 of all values of a table that arrives in parts, computed on Arrow's buffers.

    Of each column, validity, lengths and values of every level of nesting are hashed.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._digest = hashlib.sha256(json.dumps(list(names)).encode())

    def add(self, table: pa.Table) -> pa.Table:
        """Add a table; it is returned."""
        for column in table.combine_chunks().columns:
            for chunk in column.chunks:  # one
                self._add_array(chunk)
        return table

    def hexdigest(self, cohort_sha256: str) -> str:
        """Return the hash of all tables, and of the cohort's own hash."""
        digest = self._digest.copy()
        digest.update(cohort_sha256.encode())
        return digest.hexdigest()

    def _add_array(self, array: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._digest.update(f"{len(array)} {array.null_count}\n".encode())
        if array.null_count:
            self._digest.update(_bytes(array.is_valid()))
        if pa.types.is_struct(array.type):
            for child in array.flatten():
                self._add_array(child)
        elif pa.types.is_list(array.type):
            self._digest.update(_bytes(array.value_lengths()))
            self._add_array(array.flatten())
        elif pa.types.is_string(array.type):
            self._digest.update(_bytes(pc.binary_length(array)))
            self._add_text(array.drop_null() if array.null_count else array)
        else:
            self._digest.update(_bytes(array))

    def _add_text(self, values: pa.StringArray) -> None:
        import numpy as np

        _, offsets, data = values.buffers()
        if len(values) and data is not None:
            ends = np.frombuffer(offsets, np.int32)
            first, last = ends[values.offset], ends[values.offset + len(values)]
            self._digest.update(memoryview(data)[first:last])


def _bytes(values: pa.Array) -> bytes:
    """The bytes of NumPy's array of the same values, with 0 for null.

    Numbers and truth values are taken from Arrow's buffers: :meth:`pyarrow.Array.to_numpy` and scalars load pandas.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, data = values.type, values.buffers()[1]
    if data is None:
        return bytes(len(values) * (1 if pa.types.is_boolean(kind) else kind.bit_width // 8))
    if pa.types.is_boolean(kind):
        numbers = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = np.frombuffer(data, f"V{kind.bit_width // 8}")
    else:
        return bytes(pc.fill_null(values, 0).to_numpy(zero_copy_only=False).tobytes())
    numbers = numbers[values.offset : values.offset + len(values)]
    if values.null_count:
        valid = np.frombuffer(_bytes(values.is_valid()), bool)
        numbers = numbers.copy()
        numbers[~valid] = np.zeros(1, numbers.dtype)
    return numbers.tobytes()
