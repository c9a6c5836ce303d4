"""Generated series: rows of dicom_all without files, and the same slices as the Python rules see them."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from ctenrich.catalog.base import Estimate, QueryResult
from ctenrich.catalog.engine import run_on_duckdb
from ctenrich.catalog.queries import Query
from ctenrich.catalog.schema import COLUMNS, arrow_schema
from ctenrich.geometry import SliceHeader
from ctenrich.geometry.acquisitions import slice_marks

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Series:
    """One generated series as rows of dicom_all."""

    uid: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    kind: str = ""

    def headers(self) -> list[SliceHeader]:
        return [
            SliceHeader(
                sop_instance_uid=row["SOPInstanceUID"],
                sop_class_uid=row["SOPClassUID"],
                modality=row["Modality"],
                image_type=tuple(row["ImageType"]),
                position=_floats(row["ImagePositionPatient"]),
                orientation=_floats(row["ImageOrientationPatient"]),
                pixel_spacing=_floats(row["PixelSpacing"]),
                rows=row["Rows"],
                columns=row["Columns"],
                number_of_frames=int(row["NumberOfFrames"] or 1),
                frame_of_reference_uid=row["FrameOfReferenceUID"] or "",
                rescale=tuple(row.get(name) or "" for name in ("RescaleSlope", "RescaleIntercept", "RescaleType")),
                marks=slice_marks(
                    {name: _joined(row.get(name)) for name in COLUMNS_OF_MARKS},
                    row["ImageType"],
                    {name: _micros(row[name]) for name in TIME_COLUMNS if row.get(name) is not None},
                ),
            )
            for row in self.rows
        ]


def _floats(values: list[str]) -> tuple[float, ...] | None:
    try:
        return tuple(float(v) for v in values) or None
    except ValueError:
        return None


COLUMNS_OF_MARKS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "ContrastBolusAgent", "ConvolutionKernel", "KVP", "FilterType",
    "SeriesDescription", "SeriesNumber", "SliceThickness", "PatientPosition", "ManufacturerModelName",
)  # fmt: skip
TIME_COLUMNS = ("AcquisitionTime", "ContentTime")


def _joined(value: Any) -> str:
    return "\\".join(value) if isinstance(value, list) else value or ""


def _micros(time: dt.time) -> int:
    return ((time.hour * 60 + time.minute) * 60 + time.second) * 1_000_000 + time.microsecond


def rotated(rng: random.Random) -> tuple[list[float], list[float]]:
    """Two orthogonal unit vectors."""
    a = [rng.gauss(0, 1) for _ in range(3)]
    b = [rng.gauss(0, 1) for _ in range(3)]
    la = math.sqrt(sum(x * x for x in a))
    a = [x / la for x in a]
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    b = [y - dot * x for x, y in zip(a, b, strict=True)]
    lb = math.sqrt(sum(x * x for x in b))
    return a, [x / lb for x in b]


def regular(rng: random.Random, number: int) -> Series:
    """A regular stack: any orientation, spacing, offset and rounding of its numbers."""
    n = rng.choice([2, 3, 4, 5, 8, 13])
    row, col = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]) if rng.random() < 0.6 else rotated(rng)
    normal = [row[1] * col[2] - row[2] * col[1], row[2] * col[0] - row[0] * col[2], row[0] * col[1] - row[1] * col[0]]
    spacing = rng.choice([0.625, 1.0, 1.25, 2.0, 2.5, 2.75, 3.0, 5.0])
    origin = [rng.uniform(-500, 500) for _ in range(3)]
    digits = rng.choice([2, 4, 6])
    series = Series(f"1.2.3.{number}")
    order = list(range(n))
    rng.shuffle(order)
    for k in order:
        position = [o + k * spacing * c for o, c in zip(origin, normal, strict=True)]
        series.rows.append(
            {
                "collection_id": "c",
                "PatientID": f"P{number}",
                "StudyInstanceUID": f"1.2.{number}",
                "SeriesInstanceUID": series.uid,
                "SOPInstanceUID": f"{series.uid}.{k}",
                "SOPClassUID": CT,
                "Modality": "CT",
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                "ImagePositionPatient": [f"{v:.{digits}f}" for v in position],
                "ImageOrientationPatient": [f"{v:.8g}" for v in row + col],
                "PixelSpacing": ["0.7", "0.7"],
                "Rows": 512,
                "Columns": 512,
                "NumberOfFrames": None,
                "FrameOfReferenceUID": f"1.9.{number}",
                "RescaleSlope": "1",
                "RescaleIntercept": "-1024",
                "gcs_url": f"gs://b/{series.uid}.{k}.dcm",
                "instance_size": 1000,
                "k": k,
            }
        )
    return series


def _one(rng: random.Random, s: Series) -> dict[str, Any]:
    return rng.choice(s.rows)


def _shift(row: dict[str, Any], axis: int, amount: float) -> None:
    values = list(row["ImagePositionPatient"])
    if _floats(values) is None or len(values) < 3:
        return
    values[axis] = f"{float(values[axis]) + amount:.6f}"
    row["ImagePositionPatient"] = values


def _set(name: str, *values: Any) -> Callable[[random.Random, Series], None]:
    def change(rng: random.Random, s: Series) -> None:
        _one(rng, s)[name] = rng.choice(values)

    return change


def _set_all(name: str, *values: Any) -> Callable[[random.Random, Series], None]:
    def change(rng: random.Random, s: Series) -> None:
        value = rng.choice(values)
        for row in s.rows:
            row[name] = value

    return change


def _drop(rng: random.Random, s: Series) -> None:
    for _ in range(rng.choice([1, 1, 2])):
        if len(s.rows) > 1:
            s.rows.remove(_one(rng, s))


def _stretch(rng: random.Random, s: Series) -> None:
    for row in s.rows:
        _shift(row, 2, rng.choice([0.0, 0.02, 0.2, 1.0]) * (row["k"] % 2))


def _jitter(rng: random.Random, s: Series) -> None:
    for row in s.rows:
        for axis in range(3):
            _shift(row, axis, rng.uniform(-1, 1) * rng.choice([0.003, 0.03, 0.3]))


def _tilt(rng: random.Random, s: Series) -> None:
    slope = rng.choice([0.001, 0.01, 0.3])
    for row in s.rows:
        _shift(row, 1, slope * row["k"])


def _same_place(rng: random.Random, s: Series) -> None:
    a, b = _one(rng, s), _one(rng, s)
    a["ImagePositionPatient"] = list(b["ImagePositionPatient"])


def _all_one_place(rng: random.Random, s: Series) -> None:
    for row in s.rows:
        row["ImagePositionPatient"] = s.rows[0]["ImagePositionPatient"]


def _turn(rng: random.Random, s: Series) -> None:
    row = _one(rng, s)
    values = [float(v) for v in row["ImageOrientationPatient"]]
    at = rng.randrange(max(len(values), 1))
    values[at : at + 1] = [v + rng.choice([2e-5, 5e-4, 0.1]) for v in values[at : at + 1]]
    row["ImageOrientationPatient"] = [f"{v:.9g}" for v in values]


def _skew(rng: random.Random, s: Series) -> None:
    amount = rng.choice([2e-5, 3e-4, 0.2])
    for row in s.rows:
        values = [float(v) for v in row["ImageOrientationPatient"]]
        values[:1] = [v + amount for v in values[:1]]
        row["ImageOrientationPatient"] = [f"{v:.9g}" for v in values]


def _spelled(rng: random.Random, s: Series) -> None:
    """The same numbers in other words."""
    for row in s.rows:
        for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
            row[name] = [rng.choice(["{}", "{} ", " {}", "{}"]).format(v) for v in row[name]]
            row[name] = [
                f"{float(v):.8e}" if v.strip(" -0.123456789") == "" < v and rng.random() < 0.2 else v for v in row[name]
            ]


def _repeat(rng: random.Random, s: Series) -> None:
    """One instance twice under one SOP Instance UID: at its place, or at another."""
    again = {**_one(rng, s)}
    if rng.random() < 0.5:
        _shift(again, 2, rng.choice([0.5, 3.0, 100.0]))
    s.rows.append(again)


def _repeat_all(rng: random.Random, s: Series) -> None:
    """The whole series twice, as an archive sends it again with changed pixels."""
    s.rows += [{**row} for row in s.rows]


MARK_VALUES: dict[str, list[Any]] = {
    "AcquisitionNumber": ["1", "2", None, "3"],
    "TemporalPositionIdentifier": ["1", "2"],
    "ContrastBolusAgent": [None, "ULTRAVIST 370", ""],
    "ConvolutionKernel": [["B30f"], ["B70f"], ["b30F "], [], ["B30f", "2"]],
    "KVP": ["120", "120.0", "80", "120.0000001", None, "140", "x"],
    "FilterType": ["WEDGE", "FLAT"],
    "SeriesDescription": ["native", "Native ", "portal venous", None],
    "SeriesNumber": ["2", "3"],
    "SliceThickness": ["3.0", "3", "1.5", "3.001", "x", None, "1e400", "-0"],
    "PatientPosition": ["HFS", "hfs ", "FFS", None],
    "ManufacturerModelName": ["One", "ONE", "Two"],
    "ImageType": [["ORIGINAL", "PRIMARY", "AXIAL", x, *more] for x in ("A", "B") for more in ([], ["1"], ["2", "3"])],
}


def _patterns(rng: random.Random, n: int) -> list[int]:
    """A group for each of n slices in order: alternating, one after the other, one stray, or at random."""
    stray = rng.randrange(n)
    return rng.choice(
        [
            [k % 2 for k in range(n)],
            [k % 3 for k in range(n)],
            [int(k >= stray) for k in range(n)],
            [int(k == stray) for k in range(n)],
            [rng.randrange(3) for k in range(n)],
            list(range(n)),
            [n - k for k in range(n)],
            [int(abs(k - stray) < 2) for k in range(n)],
        ]
    )


def _in_order(s: Series) -> list[dict[str, Any]]:
    return sorted(s.rows, key=lambda row: row["k"])


def _groups(rng: random.Random, s: Series) -> None:
    name = rng.choice(list(MARK_VALUES))
    values = MARK_VALUES[name]
    rows = _in_order(s)
    for row, group in zip(rows, _patterns(rng, len(rows)), strict=True):
        row[name] = values[group % len(values)]


def _times(rng: random.Random, s: Series) -> None:
    """Times of one or more acquisitions, each slice with its own or a shared one, jittered, rounded, some missing."""
    rows = _in_order(s)
    between, within = rng.choice([0, 1, 7, 35, 300]), rng.choice([0, 0.4, 1])
    jitter, missing = rng.choice([0, 0, 0.9, 3]), rng.choice([0, 0, 0, 0.2])
    for name in rng.choice([TIME_COLUMNS, TIME_COLUMNS[:1], TIME_COLUMNS[1:]]):
        for k, (row, group) in enumerate(zip(rows, _patterns(rng, len(rows)), strict=True)):
            seconds = 40000 + group * between + k * within + rng.random() * jitter
            seconds = float(int(seconds)) if rng.random() < 0.5 else round(seconds, 2)
            moment = dt.datetime(2020, 1, 1) + dt.timedelta(seconds=seconds)
            row[name] = None if rng.random() < missing else moment.time()


CHANGES: dict[str, Callable[[random.Random, Series], None]] = {
    "none": lambda rng, s: None,
    "spelled": _spelled,
    "missing slice": _drop,
    "stretched": _stretch,
    "jitter": _jitter,
    "tilt": _tilt,
    "same place": _same_place,
    "all at one place": _all_one_place,
    "one turned": _turn,
    "skewed": _skew,
    "repeated": _repeat,
    "all repeated": _repeat_all,
    "class": _set("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.4", ""),
    "enhanced": _set("SOPClassUID", CT + ".1", CT + ".2"),
    "captured": _set_all("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"),
    "frames": _set("NumberOfFrames", "2", "1", "0"),
    "image type": _set(
        "ImageType",
        [],
        ["DERIVED"],
        ["ORIGINAL", "SECONDARY", "AXIAL"],
        ["DERIVED", "SECONDARY", "AXIAL"],
        ["DERIVED", "SECONDARY", "REFORMATTED"],
        ["DERIVED", "PRIMARY", "MPR", "X"],
        ["DERIVED", "PRIMARY", "CSA MPR"],
        ["DERIVED", "PRIMARY", "COMPRESSED"],
        ["DERIVED", "SECONDARY", "PROJECTION IMAGE"],
        ["DERIVED", "SECONDARY", "NOREFORMATTED"],
        ["ORIGINAL", "PRIMARY", "REFORMATTED"],
        ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ["ORIGINAL", "PRIMARY", " localizer "],
        ["ORIGINAL", "PRIMARY", "LOCALIZERS"],
        ["DERIVED MPR", "PRIMARY"],
        ["SCOUT"],
        ["ORIGINAL", "PRIMARY", "TOPOGRAM", "CT_SOM5 TOP"],
    ),
    "position": _set(
        "ImagePositionPatient",
        [],
        ["1", "2"],
        ["1", "2", "x"],
        ["nan", "0", "0"],
        ["1", "2", "inf"],
        ["1e9", "0", "0"],
        ["1e200", "-1e300", "0"],
        ["1", "2", "3", "4"],
        ["1", "2", ""],
    ),
    "orientation": _set(
        "ImageOrientationPatient", [], ["1", "0", "0"], ["0"] * 6, ["1", "0", "0", "2", "0", "0"], ["1e200"] * 6
    ),
    "orientation of all": _set_all("ImageOrientationPatient", ["0"] * 6, ["1", "0", "0", "1", "0", "0"]),
    "pixel spacing": _set(
        "PixelSpacing", ["0.7005", "0.7"], ["0.71", "0.7"], ["0.7", "0.6"], ["0", "0.7"], ["-0.7", "0.7"], [], ["0.7"]
    ),
    "pixel spacing of all": _set_all("PixelSpacing", ["0", "0"], ["-1", "-1"], ["0.9", "0.8"], ["x", "1"]),
    "rows": _set("Rows", 256, 0, None, -1),
    "columns": _set("Columns", 256, None),
    "groups": _groups,
    "more groups": _groups,
    "times": _times,
    "more times": _times,
    "rescale type": _set("RescaleType", "HU", "hu", "US", "MGML", "Z_EFF", "HU_MOD", " ", None),
    "rescale type of all": _set_all("RescaleType", "HU", "US", "PCT", "ED"),
    "slope": _set("RescaleSlope", "1", "1.0", "0.5", "2", "0", "x", "nan", "1e400", "-1", "", "1.00000000001"),
    "rescale of all": _set_all("RescaleIntercept", "-1024", "-1024.0", "-1000.5", "", "inf"),
    "map": _set_all(
        "ImageType",
        ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "Z EFF"],
        ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"],
        ["DERIVED", "PRIMARY", "AXIAL", "IODINES"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"],
    ),
    "projection": _set_all(
        "ImageType",
        ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"],
        ["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"],
        ["DERIVED", "PRIMARY", "MINIP"],
        ["DERIVED", "PRIMARY", "VOLUME_RENDER"],
        ["DERIVED", "PRIMARY", "AXIAL", "SUBTRACTION"],
        ["DERIVED", "PRIMARY", "AXIAL", "SHIP"],
        ["DERIVED", "SECONDARY", "VRTX"],
        ["DERIVED", "PRIMARY", "AXIAL", "AVERAGE"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "MIP"],
    ),
    "frame of reference": _set("FrameOfReferenceUID", "1.8.8", "", None),
    "frame of reference of all": _set_all("FrameOfReferenceUID", "", None),
}


def generate(count: int, seed: int) -> list[Series]:
    """Series of every kind, some with two faults."""
    rng = random.Random(seed)
    kinds = list(CHANGES)
    made = []
    for number in range(count):
        series = regular(rng, number)
        chosen = [kinds[number % len(kinds)]] + ([rng.choice(kinds)] if rng.random() < 0.3 else [])
        for kind in chosen:
            CHANGES[kind](rng, series)
        series.kind = "+".join(chosen)
        made.append(series)
    return made


class TableCatalog:
    """A catalog over rows that are given."""

    name = "table"
    instance_level = True
    complete = False
    version = "test"

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.connection = duckdb.connect()
        empty: dict[str, Any] = {c.name: [] if c.repeated else None for c in COLUMNS}
        table = pa.Table.from_pylist([{**empty, **row} for row in rows], arrow_schema())
        self.connection.register("rows", table)
        self.connection.execute("CREATE TABLE dicom_all AS FROM rows")

    @property
    def engine(self) -> str:
        return f"duckdb {duckdb.__version__}"

    def run(self, query: Query, parameters: Any) -> QueryResult:
        return run_on_duckdb(self.connection, query, parameters, {"dicom_all": "dicom_all"})

    def estimate(self, query: Query, parameters: Any) -> Estimate | None:
        return None

    def close(self) -> None:
        self.connection.close()
