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
            self._digest.update(array.is_valid().to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_struct(array.type):
            for child in array.flatten():
                self._add_array(child)
        elif pa.types.is_list(array.type):
            self._digest.update(pc.fill_null(array.value_lengths(), 0).to_numpy(zero_copy_only=False).tobytes())
            self._add_array(array.flatten())
        elif pa.types.is_string(array.type):
            values = pc.fill_null(array, "") if array.null_count else array
            self._digest.update(pc.binary_length(values).to_numpy(zero_copy_only=False).tobytes())
            self._add_text(values)
        else:
            values = pc.fill_null(array, False if pa.types.is_boolean(array.type) else 0)
            self._digest.update(values.to_numpy(zero_copy_only=False).tobytes())

    def _add_text(self, values: pa.StringArray) -> None:
        import numpy as np

        _, offsets, data = values.buffers()
        if len(values) and data is not None:
            ends = np.frombuffer(offsets, np.int32)
            first, last = ends[values.offset], ends[values.offset + len(values)]
            self._digest.update(memoryview(data)[first:last])
