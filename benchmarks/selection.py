"""Selection on generated catalogs: our query and the published query's steps; the crawl and reading headers.

``python -m benchmarks.selection [--quick]``. Each run is a separate process; its peak memory is reported by the system.
All stacks are regular with spacings that the published query accepts, so that both must choose the same series.
"ours" and "paper" are the two queries alone; "whole" is all of our selection: query, companions, counts, files on disk.

``python -m benchmarks.selection --large N --memory GB`` selects from catalogs of up to N instances,
in parts that fit into the memory given ("parts": the query alone, "whole": all of our selection).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SLICES = 200
_VALUES = {
    "LO": "Some words", "SH": "Words", "CS": "YES", "DS": "120.5", "IS": "120", "UI": "1.2.840.113619.2.55",
    "ST": "Words", "DA": "20010203", "TM": "101112.13", "AS": "061Y", "LT": "Some more words",
}  # fmt: skip
"""What the slices of the crawl hold beside their geometry, by value representation."""
OURS, PAPER = "select_nsclc_radiomics", "select_nsclc_radiomics_paper"

GENERATE = """
INSERT INTO dicom_all BY NAME
SELECT 'nsclc_radiomics' AS collection_id, 'P' || s AS PatientID, '1.2.' || s AS StudyInstanceUID,
  '1.2.826.0.1.3680043.8.498.1234567890123456789.' || s AS SeriesInstanceUID,
  '1.2.826.0.1.3680043.8.498.1234567890123456789.' || s || '.' || k AS SOPInstanceUID,
  '1.2.840.10008.5.1.4.1.1.2' AS SOPClassUID, 'CT' AS Modality, ['ORIGINAL', 'PRIMARY', 'AXIAL'] AS ImageType,
  ['-250.0', '-250.0', (-300 + k * (2 + s % 4))::VARCHAR] AS ImagePositionPatient,
  ['1', '0', '0', '0', '1', '0'] AS ImageOrientationPatient, ['0.9765625', '0.9765625'] AS PixelSpacing,
  512 AS Rows, 512 AS Columns, '3.0' AS SliceThickness, 'ACME' AS Manufacturer,
  '1.2.826.0.1.3680043.8.498.99.' || s AS FrameOfReferenceUID, uuid()::VARCHAR AS crdc_series_uuid,
  'gs://idc-open-data/0123456789-0123456789-0123456789/' || s || '/' || k || '.dcm' AS gcs_url,
  527000 AS instance_size, md5(s || '.' || k) AS instance_hash, 'CC BY 4.0' AS license_short_name
FROM range($series) AS a(s), range($slices) AS b(k)
WHERE hash(s, k) % $parts = $part
ORDER BY hash(s, k) // $parts
"""


def generate(path: Path, instances: int) -> None:
    """A catalog of `instances` rows in shuffled order, written in parts of half a million rows."""
    import duckdb

    from ctenrich.catalog.schema import COLUMNS, duckdb_type

    with duckdb.connect(str(path)) as connection:
        columns = ", ".join(f'"{c.name}" {duckdb_type(c)}' for c in COLUMNS)
        connection.execute(f"CREATE TABLE dicom_all ({columns})")
        connection.execute("SET memory_limit = '1GB'")
        parts = math.ceil(instances / 500_000)
        for part in range(parts):
            values = {"series": instances // SLICES, "slices": SLICES, "parts": parts, "part": part}
            connection.execute(GENERATE, values)
        connection.execute("CREATE TABLE about AS SELECT 1 AS layout")


def child(path: Path, query: str, what: str, memory: int | None) -> None:
    """Run one query; report its time, memory and choice."""
    from ctenrich.catalog.folder import FolderCatalog
    from ctenrich.catalog.queries import load_query
    from ctenrich.select.files import write_cohort
    from ctenrich.select.selection import select_cohort
    from ctenrich.select.spool import heads_of

    catalog = FolderCatalog(path, memory=memory)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    if what == "whole":
        selection = select_cohort(query, catalog, {})
        write_cohort(selection, path.with_suffix(".parquet"))
        chosen = {s.series_instance_uid for s in heads_of(selection.cohort.series)}
    elif what == "parts":
        chosen = {uid for part in catalog.run_in_parts(load_query(query), {}) for uid in _chosen(part.table)}
    else:
        chosen = _chosen(catalog.run(load_query(query), {}).table)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    found = {
        "seconds": seconds,
        "cpu": cpu,
        "peak_gb": peak,
        "series": len(chosen),
        "hash": hash(tuple(sorted(chosen))),
    }
    print(json.dumps(found))


def _chosen(table: pa.Table) -> set[str]:
    """Series that a query chose: all of the published query's answer, and those without a reason of ours."""
    uids = table["SeriesInstanceUID"].to_pylist()
    if "failed" not in table.column_names:
        return set(uids)
    return {uid for uid, failed in zip(uids, table["failed"].to_pylist(), strict=True) if not failed}


def measure(path: Path, query: str, what: str = "query", memory: int = 0) -> dict[str, float]:
    """Run one query, or a whole selection, in a separate process; 0 is the default limit of memory."""
    command = [sys.executable, "-m", "benchmarks.selection", "--child", str(path), query, what, str(memory)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "0"}
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def selection(folder: Path, sizes: list[int]) -> None:
    """Print the table of the selection."""
    print(
        f"{'instances':>10} {'ours s':>8} {'ours GB':>8} {'paper s':>8} {'paper GB':>9} {'paper/ours':>11} "
        f"{'whole s':>8} {'whole GB':>9} {'whole us/instance':>18}"
    )
    for size in sizes:
        path = folder / f"{size}.duckdb"
        generate(path, size)
        ours, paper, whole = measure(path, OURS), measure(path, PAPER), measure(path, OURS, "whole")
        if not ours["hash"] == paper["hash"] == whole["hash"] or ours["series"] != size // SLICES:
            raise SystemExit(f"the two queries chose {ours['series']} and {paper['series']} series")
        print(
            f"{size:>10,} {ours['seconds']:>8.2f} {ours['peak_gb']:>8.2f} {paper['seconds']:>8.2f} "
            f"{paper['peak_gb']:>9.2f} {paper['seconds'] / ours['seconds']:>11.2f} {whole['seconds']:>8.2f} "
            f"{whole['peak_gb']:>9.2f} {whole['seconds'] / size * 1e6:>18.2f}"
        )
        path.unlink()


def large(folder: Path, instances: int, memory: int) -> None:
    """Print what selections in parts take, beside the published query's steps with the same limit of memory."""
    columns = [f"{what} {unit}" for what in ("parts", "paper", "whole") for unit in ("s", "CPU s", "GB")]
    print(f"{'instances':>11}" + "".join(f"{column:>12}" for column in columns))
    for size in [n for n in (1_000_000, 3_000_000, 10_000_000) if n < instances] + [instances]:
        path = folder / f"{size}.duckdb"
        generate(path, size)
        found = [measure(path, q, what, memory) for q, what in ((OURS, "parts"), (PAPER, "query"), (OURS, "whole"))]
        if len({one["hash"] for one in found}) > 1 or found[0]["series"] != size // SLICES:
            raise SystemExit(f"the queries chose {[one['series'] for one in found]} series")
        values = [one[key] for one in found for key in ("seconds", "cpu", "peak_gb")]
        print(f"{size:>11,}" + "".join(f"{value:>12.2f}" for value in values), flush=True)
        path.unlink()


def crawl(folder: Path, files: int) -> None:
    """Print the crawl compared with reading the headers by pydicom alone; headers as full as a scanner's."""
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from tests.support.catalog_cases import header

    from ctenrich.catalog.folder import index_folders
    from ctenrich.catalog.schema import COLUMNS, FILE_META

    place = folder / "dicom"
    place.mkdir()
    plain = set(header(1).keys())
    columns = [c for c in COLUMNS if c.vr in _VALUES and tag_for_keyword(c.name) not in plain]
    filler = {c.name: _VALUES[c.vr] for c in columns if c.name not in {*FILE_META, "SpecificCharacterSet"}}
    for number in range(1, files + 1):
        slice_ = header(number, Rows=256, Columns=256, PixelData=b"\0" * (256 * 256 * 2), **filler)
        slice_.save_as(place / f"{number}.dcm")
    paths = sorted(place.iterdir())
    attributes = len(pydicom.dcmread(paths[0], stop_before_pixels=True))
    begin = time.perf_counter()
    for path in paths:
        pydicom.dcmread(path, stop_before_pixels=True)
    alone = time.perf_counter() - begin
    begin = time.perf_counter()
    summary = index_folders([place], folder / "crawl.duckdb", processes=2)
    crawled = time.perf_counter() - begin
    if summary.instances != files:
        raise SystemExit(f"{summary.instances} of {files} files are in the catalog")
    print(f"crawl of {files} files of {attributes} attributes on 2 processes: {crawled:.2f} s; "
          f"headers alone, one process: {alone:.2f} s; ratio {crawled / alone:.2f}")  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--large", type=int, metavar="N", help="instances of the largest catalog")
    parser.add_argument("--memory", type=float, metavar="GB", default=8.0, help="memory of a selection with --large")
    arguments = parser.parse_args()
    if arguments.child:
        path, query, what, memory = arguments.child
        child(Path(path), query, what, int(memory) or None)
        return
    with tempfile.TemporaryDirectory() as name:
        if arguments.large:
            large(Path(name), arguments.large, int(arguments.memory * 1e9))
            return
        selection(Path(name), [100_000] if arguments.quick else [100_000, 300_000, 1_000_000, 3_000_000])
        crawl(Path(name), 2000 if arguments.quick else 4000)


if __name__ == "__main__":
    main()
