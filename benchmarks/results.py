"""How fast the object tables are rebuilt from written DICOM (CPU time), beside a plain pydicom walk of the same files.

    python -m benchmarks.results [--quick]

Objects are a series' SEG (as many frames as slices and organs), its shape SR, and a regions SR with a group a slice.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
from tests.results.reports import (
    CT,
    HEART,
    MM3,
    SITE,
    VOLUME,
    coded,
    group,
    head,
    number,
    reference,
    segment_links,
    write_seg,
    write_sr,
)

from ctenrich.results.tables import build_object_tables


def _write_series(folder: Path, index: int, slices: int) -> list[Path]:
    uid = f"1.2.{index}"
    items = [number(VOLUME, str(n), MM3) for n in range(17)]
    organs = [group(*head(), coded(SITE, HEART), *segment_links(f"{uid}.4", uid, n), *items) for n in range(1, 5)]
    source = ("260753009", "SCT", "Source")
    regions = [
        group(*head(f"slice {k}"), coded(SITE, HEART), reference(source, CT, f"{uid}.{k}"), items[0])
        for k in range(slices)
    ]
    return [
        write_seg(folder / uid / "seg.dcm", f"{uid}.4"),
        write_sr(folder / uid / "shape_sr.dcm", f"{uid}.6", organs),
        write_sr(folder / uid / "regions_sr.dcm", f"{uid}.7", regions),
    ]


def _count(items: object) -> int:
    found = list(items or ())  # type: ignore[call-overload]
    return len(found) + sum(_count(item.get("ContentSequence")) for item in found)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    series, slices = (4, 50) if parser.parse_args().quick else (30, 200)
    with tempfile.TemporaryDirectory() as scratch:
        files = [p for n in range(series) for p in _write_series(Path(scratch), n, slices)]
        build_object_tables(files[:3], Path(scratch) / "warm")
        start = time.process_time()
        items = sum(_count(pydicom.dcmread(p).get("ContentSequence")) for p in files)
        walked = time.process_time() - start
        start = time.process_time()
        tables = build_object_tables(files, Path(scratch) / "tables")
        built = time.process_time() - start
        rows = {name: pq.read_metadata(path).num_rows for name, path in tables.items()}
    assert rows["measurement_groups"] == series * (4 + slices)
    assert rows["strict_quantitative_measurements"] == series * 4 * 17
    print(f"{series} series of {slices} slices, {len(files)} files, {items} content items")
    print(f"all tables from DICOM      {built:7.2f} s   {series / built:6.1f} series/s")
    print(f"pydicom, reading alone     {walked:7.2f} s   {series / walked:6.1f} series/s   ratio {walked / built:.2f}")


if __name__ == "__main__":
    main()
