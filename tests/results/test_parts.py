"""Parts of tables become row groups of one file; many parts are joined, so that the list of row groups stays short."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctenrich.results import parts
from ctenrich.results.parts import TableFiles
from ctenrich.results.tables import ObjectFiles
from ctenrich.workspace import Workspace

SCHEMA = pa.schema([("n", pa.int64())])


def written(folder: Path, count: int) -> pq.ParquetFile:
    with TableFiles(folder, {"rows": SCHEMA}) as files:
        for number in range(count):
            files.write({"rows": pa.table({"n": [2 * number, 2 * number + 1]})})
    return pq.ParquetFile(folder / "rows.parquet")


def test_each_of_a_few_parts_is_a_row_group(tmp_path: Path) -> None:
    with written(tmp_path, 256) as file:
        assert file.num_row_groups == 256


def test_further_parts_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_JOINED_ROWS", 10)
    monkeypatch.setattr(parts, "_MOST_ROWS", 10)
    with written(tmp_path, 270) as file:
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        assert rows == [2] * 256 + [10, 10, 8]
        assert file.read()["n"].to_pylist() == list(range(540))


def test_row_groups_grow_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_JOINED_ROWS", 10)
    monkeypatch.setattr(parts, "_MOST_ROWS", 40)
    with written(tmp_path, 500) as file:
        rows = [file.metadata.row_group(group).num_rows for group in range(256, file.num_row_groups)]
        assert rows == [32, 34, 36, 38, 40, 40, 40, 40, 40, 40, 40, 40, 28]
        assert file.read()["n"].to_pylist() == list(range(1000))


def test_no_file_is_left_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="schema"), TableFiles(tmp_path, {"rows": SCHEMA}) as files:
        files.write({"rows": pa.table({"n": ["text"]})})
    assert not list(tmp_path.iterdir())


def test_objects_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    run = Workspace(tmp_path)
    assert list(ObjectFiles(run)) == []
    for name in ("1.2/a/objects/seg.dcm", "1.10/b/objects/seg.dcm", "1.10/b/objects/a.dcm", "1.10/a/objects/z.dcm"):
        path = tmp_path / "series" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "series" / "1.10" / "a" / "objects" / "notes.txt").touch()
    (tmp_path / "series" / "stray.dcm").touch()
    files = ObjectFiles(run)
    assert list(files) == sorted((tmp_path / "series").glob("*/*/objects/*.dcm")) == list(files)
    assert len(files) == 4
