"""Time to rebuild the object tables from DICOM, compared with a plain pydicom walk of the files; and of the report.

    python -m benchmarks.results [--quick]
    python -m benchmarks.results --report 100000
    python -m benchmarks.results --merge 100000
    python -m benchmarks.results --table 100000

Objects are a series' SEG (a frame for every slice and organ, each with its source), its shape SR, and a regions SR with
one group per slice. The report is that of a generated run: size and first view of its index in chromium, time of the
first build, of a build without changes and of one after a change in one series; every series and product has its
folder, but no records. ``--report`` makes that of one size only. Of the page of a series of 300 slices
of 512 x 512: its size with all files that it loads, its CPU time, and the time until its picture can be used.
``--merge`` joins generated parts of object tables, a SEG of four organs in 20 slices and its SR for each of five
products of every series, without reading files: peak memory. ``--table`` writes the measurements of five products of
four organs of every series as one file, and reads it in several ways.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydicom
from pydicom import Dataset
from tests.support.browser import chromium
from tests.support.report_runs import NETWORK, body, make_run, uid_of
from tests.support.result_reports import (
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

from ctenrich.dicom.sop_classes import SEGMENTATION
from ctenrich.masks import masks_from_label_map
from ctenrich.progress import SILENT
from ctenrich.records import SegmentMasks, Volume
from ctenrich.report import build_report
from ctenrich.results import tables as result_tables
from ctenrich.results.kept_parts import Part
from ctenrich.results.metadata import conform
from ctenrich.results.parts import TableFiles
from ctenrich.results.schema import arrow_schema
from ctenrich.results.tables import build_object_tables, build_tables
from ctenrich.workspace import Workspace, load_record, save_array, save_record, sha256_of_array

NOT_SHOWN = ("dicom_metadata", "proofs", "measurement_groups", "qualitative_measurements", "segmentations")
"""Large tables that no page of a report shows."""


def _item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _frames(uid: str, slices: int) -> list[Dataset]:
    """Functional groups as our SEGs have them: content, position, segment, source slice with its codes."""
    purpose = _item(CodeValue="121322", CodingSchemeDesignator="DCM", CodeMeaning="Source image for image processing")
    derived = _item(CodeValue="113076", CodingSchemeDesignator="DCM", CodeMeaning="Segmentation")
    out = []
    for organ in range(1, 5):
        for k in range(slices):
            source = _item(
                ReferencedSOPClassUID=CT,
                ReferencedSOPInstanceUID=f"{uid}.{k}",
                PurposeOfReferenceCodeSequence=[purpose],
            )
            out.append(
                _item(
                    FrameContentSequence=[_item(DimensionIndexValues=[organ, k + 1])],
                    PlanePositionSequence=[_item(ImagePositionPatient=[-200.0, -200.0, 3.0 * k])],
                    SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=organ)],
                    DerivationImageSequence=[_item(SourceImageSequence=[source], DerivationCodeSequence=[derived])],
                )
            )
    return out


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
        write_seg(folder / uid / "seg.dcm", f"{uid}.4", PerFrameFunctionalGroupsSequence=_frames(uid, slices)),
        write_sr(folder / uid / "shape_sr.dcm", f"{uid}.6", organs),
        write_sr(folder / uid / "regions_sr.dcm", f"{uid}.7", regions),
    ]


def _again(scratch: Path, series: int, slices: int) -> None:
    """Tables of a run with parts that are kept: when first built, and after a change in one series."""
    run = Workspace(scratch / "run-of-parts")
    for n in range(series):
        _write_series(run.root / "series", n, slices)
    for folder in (run.root / "series").iterdir():
        objects = folder / "expert" / "objects"
        objects.mkdir(parents=True)
        for path in folder.glob("*.dcm"):
            path.rename(objects / path.name)
    seconds = []
    for changed in (0, 0, 1):
        for path in sorted((run.root / "series").glob("*/*/objects/*.dcm"))[:changed]:
            path.touch()
        start = time.process_time()
        build_tables(run)
        seconds.append(time.process_time() - start)
    kept = sum(path.stat().st_size for path in (run.tables / "parts").iterdir())
    tables = sum(path.stat().st_size for path in run.tables.glob("*.parquet"))
    print(f"CPU: first time {seconds[0]:.1f} s, again {seconds[1]:.1f} s, after one change {seconds[2]:.1f} s")
    print(f"kept parts {kept / 1e6:.1f} MB, tables {tables / 1e6:.1f} MB")


@dataclass(frozen=True)
class _GeneratedFiles:
    """Paths of a SEG and an SR of five products of each series; no file exists."""

    root: Path
    series: int

    def __iter__(self) -> Iterator[Path]:
        for series in range(self.series):
            for product in range(5):
                folder = self.root / _uid(series) / f"product{product}" / "objects"
                yield from (folder / name for name in ("seg.dcm", "shape_sr.dcm"))

    def __len__(self) -> int:
        return self.series * 10


def _merge(scratch: Path, series: int) -> None:
    """Join generated parts of a large run; peak memory of this process."""
    seg, sr = _write_series(scratch / "objects", 0, 20)[:2]
    made = {name: result_tables._part_of_files([path]) for name, path in (("seg.dcm", seg), ("shape_sr.dcm", sr))}

    def part_of(work: result_tables._Work) -> tuple[str, Part]:
        found = made[work.files[0].name]
        rows = {
            name: pa.concat_tables([table] * len(work.files)).combine_chunks() for name, table in found.tables.items()
        }
        available = {f"{path.parts[-4]}.{path.parts[-3][-1]}": path.parts[-4] for path in work.files}
        segmentations = available if found.facts["segmentations"] else {}
        facts = {**found.facts, "files": len(work.files), "segmentations": segmentations}
        return hashlib.sha256("".join(map(str, work.files)).encode()).hexdigest()[:32], Part(tables=rows, facts=facts)

    classes = {"seg.dcm": SEGMENTATION, "shape_sr.dcm": ""}
    with (
        patch.object(result_tables, "_kept_or_read", part_of),
        patch.object(result_tables, "media_class", lambda path: classes[path.name]),
    ):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        files = _GeneratedFiles(scratch / "run" / "series", series)
        written, names = result_tables._build_object_tables(files, scratch / "run" / "tables", SILENT, 1, None)
    peak, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time() - start
    size = sum(path.stat().st_size for path in written.values())
    groups = max(pq.read_metadata(path).num_row_groups for path in written.values())
    print(
        f"{series} series of 5 products, {len(files)} objects, {len(names)} parts: {seconds:.0f} s of CPU, "
        f"peak {peak / 1024:.0f} MB ({before / 1024:.0f} MB before), tables {size / 1e6:.0f} MB, "
        f"at most {groups} row groups in one"
    )


def _table(scratch: Path, series: int) -> None:
    """Write the measurements of five products of each series as one file, and read it in the ways of its readers."""
    sr = _write_series(scratch / "objects", 0, 20)[1]
    name = "quantitative_measurements"
    rows = conform(result_tables._part_of_files([sr]).tables[name], arrow_schema(name))
    folder, noise = scratch / "run" / "tables", np.random.default_rng(1)
    start = time.process_time()
    with TableFiles(folder, {name: rows.schema}) as files:
        for first in range(0, series, 8):
            uids = [_uid(n) for n in range(first, min(first + 8, series)) for _ in range(5 * rows.num_rows)]
            part = pa.concat_tables([rows] * (len(uids) // rows.num_rows))
            other: dict[str, Any] = {
                "ReferencedSeriesInstanceUID": uids,
                "SOPInstanceUID": [f"{uid}.{n // rows.num_rows % 5}" for n, uid in enumerate(uids)],
                "valueFloat": noise.random(len(uids)),
            }
            for column, values in other.items():
                place = part.schema.get_field_index(column)
                part = part.set_column(place, part.schema.field(place), pa.array(values))
            files.write({name: part})
    seconds = time.process_time() - start
    path = folder / f"{name}.parquet"
    found = pq.read_metadata(path)
    largest = max(found.row_group(group).num_rows for group in range(found.num_row_groups))
    print(
        f"{series} series of 5 products: {found.num_rows} rows, {path.stat().st_size / 1e6:.0f} MB in one file, "
        f"{found.num_row_groups} row groups of up to {largest} rows, written in {seconds:.0f} s of CPU"
    )
    uid = _uid(series // 2)
    one = f"SELECT COUNT(*) FROM {name} WHERE ReferencedSeriesInstanceUID = '{uid}'"
    mean = f"SELECT findingSite.CodeMeaning, AVG(valueFloat) FROM {name} GROUP BY 1"
    code = "from pathlib import Path; import ctenrich.results.query as q; from ctenrich.workspace import Workspace"
    run = f"Workspace(Path({str(scratch / 'run')!r}))"
    pandas = (
        f"import pandas; pandas.read_parquet({str(path)!r}, filters=[('ReferencedSeriesInstanceUID', '==', {uid!r})])"
    )
    for what, program in (
        ("query: rows of one series", f"{code}\nq.run_query({run}, {one!r})"),
        ("query: mean of all by organ", f"{code}\nq.run_query({run}, {mean!r})"),
        ("pandas: rows of one series", pandas),
        ("loading of the package alone", f"{code}\nimport duckdb, pyarrow.parquet"),
    ):
        usage, peak = _usage(program)
        print(f"{what:30} {usage:6.1f} s of CPU, {peak:6.0f} MB")


def _uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{number:039d}"


def _usage(program: str) -> tuple[float, float]:
    """CPU seconds and largest resident memory (MB) of a program in a process of its own."""
    ending = "import time\nprint(time.process_time(), open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{ending}"], check=True, capture_output=True, text=True)
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), float(kilobytes) / 1024


def _hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.parquet"))}


def _tables(scratch: Path, series: int, slices: int) -> None:
    files = [p for n in range(series) for p in _write_series(scratch / "objects", n, slices)]
    build_object_tables(files[:3], scratch / "warm")
    start = time.process_time()
    elements = sum(1 for p in files for _ in pydicom.dcmread(p).iterall())
    walked = time.process_time() - start
    wall, start = time.monotonic(), time.process_time()
    tables = build_object_tables(files, scratch / "tables")
    built, waited = time.process_time() - start, time.monotonic() - wall
    rows = {name: pq.read_metadata(path).num_rows for name, path in tables.items()}
    assert rows["measurement_groups"] == series * (4 + slices)
    assert rows["strict_quantitative_measurements"] == series * 4 * 17
    first = _hashes(scratch / "tables")
    build_object_tables(files, scratch / "again")
    same = "identical" if _hashes(scratch / "again") == first else "DIFFERENT"
    print(f"{series} series of {slices} slices, {len(files)} files, {elements} data elements")
    print(f"all tables from DICOM      {built:7.2f} s   {series / built:6.1f} series/s of CPU time")
    print(f"                           {waited:7.2f} s   {series / waited:6.1f} series/s on the clock (at least 5)")
    print(f"pydicom, reading alone     {walked:7.2f} s   {series / walked:6.1f} series/s   ratio {walked / built:.2f}")
    print(f"built again from DICOM     {same}, {len(first)} tables")


def _report(scratch: Path, series: int, limit: int) -> None:
    small = make_run(scratch / f"few-{series}", 50, pictures=0, broken=2)
    run = Workspace(scratch / f"run-{series}")
    count = _grow(small, run, series)
    times = [_seconds(run), _seconds(run)]
    (run.series_dir(f"{uid_of(1)}.0") / "changed").mkdir()
    times.append(_seconds(run))
    index = run.report / "index.html"
    data = sum(path.stat().st_size for path in (run.report / "data").glob("*.js"))
    size = index.stat().st_size / 1e6
    print(f"\nreport of {count:,} series: index.html {size:.2f} MB, data {data / 1e6:.2f} MB (below 30)")
    print(f"CPU: first time {times[0]:.1f} s, again {times[1]:.1f} s, after one change {times[2]:.1f} s")
    clock, thread = _first_view(index)
    print(f"first view in chromium {clock:.0f} ms (below {limit}), its main thread {thread:.0f} ms (medians of 5)")


def _grow(small: Workspace, run: Workspace, series: int) -> int:
    """Write the tables and folders of many series without records: copies of a few, under new UIDs."""
    run.tables.mkdir(parents=True)
    copies = -(-series // 50)
    for path in small.tables.glob("*.parquet"):
        if path.stem in NOT_SHOWN or path.stem.startswith("strict_"):
            continue
        table = pq.read_table(path)
        if path.stem == "runs" or "SeriesInstanceUID" not in table.column_names:
            pq.write_table(table, run.tables / path.name)
            continue
        with pq.ParquetWriter(run.tables / path.name, table.schema, compression="zstd") as writer:
            for first in range(0, copies, 40):
                parts = [_renamed(table, copy) for copy in range(first, min(first + 40, copies))]
                writer.write_table(pa.concat_tables(parts))
    for uid in pq.read_table(run.tables / "series.parquet")["SeriesInstanceUID"].to_pylist():
        run.series_dir(uid).mkdir(parents=True)
    objects = pq.read_table(run.tables / "objects.parquet", columns=["SeriesInstanceUID", "product"]).to_pylist()
    for uid, product in {(row["SeriesInstanceUID"], row["product"]) for row in objects}:
        (run.series_dir(uid) / product.replace(":", "-")).mkdir()
    return 50 * copies


def _renamed(table: pa.Table, copy: int) -> pa.Table:
    """A table whose UIDs all end in the number of the copy."""
    for place, field in enumerate(table.schema):
        if "UID" in field.name and pa.types.is_string(field.type):
            named = pc.binary_join_element_wise(table[field.name], pa.scalar(f".{copy}"), "")
            table = table.set_column(place, field, named)
    return table


def _seconds(run: Workspace) -> float:
    start = time.process_time()
    build_report(run)
    return time.process_time() - start


def _first_view(index: Path) -> tuple[float, float]:
    """Milliseconds until list, gallery and first chart are drawn: on the clock, and of chromium's main thread."""
    found = []
    for _ in range(5):
        with chromium() as seen:
            session = seen.page.context.new_cdp_session(seen.page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            seen.page.goto(index.as_uri())
            seen.page.wait_for_selector("#gallery a.card")
            seen.page.wait_for_selector("#chart a.pt")
            clock = float(seen.page.evaluate("performance.now()"))
            metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
            found.append((clock, 1000 * metrics["TaskDuration"]))
    return median(clock for clock, _ in found), median(task for _, task in found)


def _large_series(run: Workspace, slices: int) -> None:
    """Replace the volume and masks of the first series by larger ones with noise of 25 HU."""
    uid = uid_of(0)
    hu, labels = (np.repeat(np.repeat(a, 8, axis=1), 7, axis=2)[:, :512, :512] for a in body(0))
    order = np.arange(slices) * len(hu) // slices
    noise = np.random.default_rng(1)
    wide = np.full((slices, 512, 512), -1000, np.int16)
    for k, source in enumerate(order):
        wide[k, :, : hu.shape[2]] = hu[source]
        wide[k] += noise.normal(0, 25, wide[k].shape).astype(np.int16)
    mask = np.zeros(wide.shape, np.uint8)
    mask[:, :, : labels.shape[2]] = labels[order]
    path = run.series_dir(uid) / "volume.json"
    volume = load_record(path, Volume)
    save_array(run.resolve(uid, volume.array_path), wide)
    affine = ((0.7, 0.0, 0.0, -180.0), (0.0, 0.7, 0.0, -180.0), (0.0, 0.0, 1.0, -150.0), (0.0, 0.0, 0.0, 1.0))
    sha256 = sha256_of_array(wide)
    save_record(path, replace(volume, shape=wide.shape, affine_lps=affine, spacing=(1.0, 0.7, 0.7), sha256=sha256))
    folder = run.product_dir(uid, NETWORK)
    masks = load_record(folder / "masks.json", SegmentMasks)
    names = [(s.number, s.name, s.source_label) for s in masks.segments]
    template = replace(masks, shape=wide.shape)
    save_record(
        folder / "masks.json", masks_from_label_map(mask, names, template, folder / "masks" / "labels.npy", run)
    )


def _series_page(scratch: Path, slices: int) -> None:
    run = make_run(scratch / "large", 1)
    build_report(run)
    shutil.rmtree(run.report)
    _large_series(run, slices)
    times = []
    for _ in range(2):
        start = time.process_time()
        index = build_report(run)
        times.append(time.process_time() - start)
    size = sum(p.stat().st_size for p in run.report.rglob("*") if p.is_file())
    with chromium() as seen:
        seen.page.goto((index.parent / "series" / f"{uid_of(0)}.html").as_uri())
        start = time.monotonic()
        seen.page.wait_for_selector(".bench[data-ready]")
        ready = time.monotonic() - start
    print(f"\npage of a series of {slices} slices, 512 x 512: {size / 1e6:.2f} MB with all its files (below 6)")
    print(f"first time {times[0]:.2f} s of CPU, again {times[1]:.2f} s; picture ready after {ready:.1f} s in chromium")


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--merge", type=int, help="join the parts of the tables of this number of series, and nothing else"
    )
    parser.add_argument("--table", type=int, help="one table of this number of series, and nothing else")
    parser.add_argument("--report", type=int, help="make the report of this number of series, and nothing else")
    arguments = parser.parse_args()
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.table:
            _table(Path(scratch), arguments.table)
            return
        if arguments.merge:
            _merge(Path(scratch), arguments.merge)
            return
        if arguments.report:
            _report(Path(scratch), arguments.report, 2000)
            return
        _tables(Path(scratch), *((4, 50) if quick else (30, 200)))
        _again(Path(scratch), *((40, 50) if quick else (200, 200)))
        for series, limit in ((100, 1000),) if quick else ((500, 1000), (1000, 2000), (10_000, 2000)):
            _report(Path(scratch), series, limit)
        _series_page(Path(scratch), 300)


if __name__ == "__main__":
    main()
