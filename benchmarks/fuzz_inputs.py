"""Valid files of every kind that ctenrich reads, with what reads them, and mutators that damage files."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import torch
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from tests.support.cohorts import make_cohort
from tests.support.compressed_frames import COLUMNS, ROWS, Encoder, jpeg, jpeg2000, jpegls, rle, write_frames
from tests.support.encode_cases import (
    make_expert_masks,
    make_landmarks,
    make_masks,
    make_regions,
    make_scores,
    make_series,
    make_shape,
)
from tests.support.small_series import Small, save, small_slice

from ctenrich.catalog.headers import read_header
from ctenrich.codes.lint import check_mappings
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.ct_slice import read_slice
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.inference.checkpoint import load_restricted
from ctenrich.inference.restricted_unpickler import load_pickle_restricted
from ctenrich.ledger.database import set_aside_if_damaged
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.ledger.rows import ProductKey, StageTiming
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Outcome, Severity, State
from ctenrich.resources import folder as own_folder
from ctenrich.select.cohort_file import read_cohort
from ctenrich.settings import ConvertSettings, EncodeSettings, Settings, load_settings
from ctenrich.workspace import Workspace, load_record, save_record

__all__ = ["SETTINGS", "Original", "make_originals", "mutate"]

SETTINGS = Settings(convert=ConvertSettings(nifti=False))
Reader = Callable[[Path], object]


class Original(NamedTuple):
    """A valid file, and what reads it."""

    kind: str
    content: bytes
    read: Reader
    suffix: str


# ---------------------------------------------------------------- mutators


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change 1 to 8 places of a file: bits, bytes, numbers, ranges, its end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if not data:
            break
        start = rng.randrange(len(data))
        length = min(rng.choice((1, 2, 4, 8, 64, 1024)), len(data) - start)
        match rng.randrange(8):
            case 0:
                data[start] ^= 1 << rng.randrange(8)
            case 1:
                data[start] = rng.randrange(256)
            case 2:
                data[start : start + length] = rng.choice((b"\0", b"\xff", b"\x80", b"\x7f")) * length
            case 3:
                data[start : start + 4] = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data))).to_bytes(4, "little")
            case 4:
                del data[start : start + length]
            case 5:
                data[start:start] = data[start : start + length] * rng.choice((1, 1, 16))
            case 6:
                other = rng.randrange(len(data))
                data[start : start + length] = data[other : other + length]
            case 7 if rng.random() < 0.3:
                del data[start:]
    return bytes(data)


# ---------------------------------------------------------------- readers


def _read_ct(path: Path) -> None:
    read_header(path)
    open_dataset(path)
    read_slice(path)


def _read_ledger(path: Path) -> None:
    """Read all that a ledger holds; what is damaged is set aside, and the new one can be read and written."""
    try:
        _read_rows(path)
    finally:
        set_aside_if_damaged(path)
        with Ledger(path) as ledger:
            ledger.set_plan([("1.2", "")])
            ledger.record(Outcome("1.2", "", State.DONE, "sort"))
            assert [(o.series_instance_uid, o.state) for o in ledger.outcomes()] == [("1.2", State.DONE)]
        _read_rows(path)


def _read_rows(path: Path) -> None:
    with LedgerReader(path) as ledger:
        for rows in (ledger.plan, ledger.outcomes, ledger.timings, ledger.issues, ledger.runs, ledger.leased_series):
            rows()


def _read_sr_rows(path: Path) -> None:
    rows_of(read_sr(path))


def _record_reader(kind: type) -> Reader:
    return lambda path: load_record(path, kind)


def _read_mappings(path: Path) -> None:
    folder = path.parent / "mappings"
    folder.mkdir(exist_ok=True)
    path.replace(folder / "segments.csv")
    check_mappings(folder)
    (folder / "segments.csv").replace(path)


# ---------------------------------------------------------------- valid files


def make_originals(folder: Path) -> list[Original]:
    """One or more valid files of each kind."""
    makers = (_images, _compressed_images, _of_a_cohort, _objects, _records, _models)
    return [original for make in makers for original in make(folder / make.__name__)]


def _images(folder: Path) -> list[Original]:
    out = []
    for syntax in (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    ):
        path = save(small_slice(Small(), 0), folder / "ct.dcm", syntax)
        out.append(Original("image", path.read_bytes(), _read_ct, ".dcm"))
    return out


_CODECS: tuple[tuple[str, Encoder, int], ...] = (
    (RLELossless, rle, 16),
    (JPEGLosslessSV1, jpeg(12, predictor=1), 12),
    (JPEGExtended12Bit, jpeg(12), 12),
    (JPEGLSLossless, jpegls(), 12),
    (JPEG2000Lossless, jpeg2000(12), 12),
    (HTJ2KLossless, jpeg2000(12, high_throughput=True), 12),
)


def _compressed_images(folder: Path) -> list[Original]:
    pixels = np.random.default_rng(1).integers(0, 4000, (ROWS, COLUMNS)).astype(np.uint16)
    out = []
    for syntax, encode, bits in _CODECS:
        elements: dict[str, object] = {"BitsStored": bits, "HighBit": bits - 1}
        path = write_frames(folder / syntax, syntax, [encode(pixels)], elements=elements) / "0.dcm"
        out.append(Original("compressed image", path.read_bytes(), _read_ct, ".dcm"))
    return out


def _of_a_cohort(folder: Path) -> list[Original]:
    cohort = make_cohort(folder, 1)
    plan = next(p for p in folder.rglob("*.dcm") if pydicom.dcmread(p).Modality == "RTSTRUCT")
    return [
        Original("rtstruct", plan.read_bytes(), load_contours, ".dcm"),
        Original("cohort", cohort.read_bytes(), read_cohort, ".parquet"),
    ]


def _objects(folder: Path) -> list[Original]:
    """SEGs of all types, and the three SRs; a SEG is read on its own grid and on that of its CT."""
    workspace = Workspace(folder / "objects")
    series, volume = make_series(folder / "source")
    uid = series.series_instance_uid
    masks = make_expert_masks(series, workspace)
    out = []

    def on_source(path: Path) -> None:
        read_seg(path, series)

    for kind, product in (("BINARY", masks), ("FRACTIONAL", masks), ("LABELMAP", make_masks(series, workspace))):
        settings = Settings(encode=EncodeSettings(seg_type=kind))
        seg = encode_seg(product, volume, series, settings=settings, workspace=workspace)
        path = workspace.resolve(uid, seg.path)
        out += [Original("seg", path.read_bytes(), read, ".dcm") for read in (read_seg, on_source)]
        if kind == "BINARY":
            data = pydicom.dcmread(path)
            data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            data.save_as(folder / "deflated.dcm")
            out.append(Original("seg", (folder / "deflated.dcm").read_bytes(), read_seg, ".dcm"))
            scores, options = make_scores(series), {"settings": SETTINGS, "workspace": workspace}
            shape = encode_shape_sr(make_shape(masks), masks, seg, series, **options)
            landmarks = encode_landmarks_sr(make_landmarks(series), scores, series, **options)
            regions = encode_regions_sr(make_regions(series), scores, series, **options)
            for report in (shape, landmarks, regions):
                out.append(Original("sr", workspace.resolve(uid, report.path).read_bytes(), _read_sr_rows, ".dcm"))
    return out


def _timing(key: ProductKey) -> StageTiming:
    return StageTiming(**key._asdict(), stage="segment", seconds=1.0, cpu_seconds=1.0, peak_memory=1000)


def _records(folder: Path) -> list[Original]:
    """A ledger, records as JSON, settings and mappings."""
    folder.mkdir(parents=True)
    key = ProductKey("1.2", "expert")
    issue = Issue("rule", Severity.WARNING, "1.2.3", "a message", "checker", "1")
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.start_run("run", "1", "serial")
        ledger.set_plan([("1.2", ""), tuple(key)])
        failed = Outcome(*key, State.FAILED, "segment", Reason.NO_EXPERT, "none")
        ledger.record(Outcome("1.2", "", State.DONE, "sort"), failed)
        ledger.add_timings(_timing(key))
        ledger.set_issues(key, "segment", [issue])
        ledger.leases().acquire("1.2", "owner", 60)
    series, volume = make_series(folder / "ct")
    out = [Original("ledger", (folder / "ledger.sqlite").read_bytes(), _read_ledger, ".sqlite")]
    for record in (series, volume):
        save_record(folder / "record.json", record)
        out.append(Original("record", (folder / "record.json").read_bytes(), _record_reader(type(record)), ".json"))
    settings = b'[geometry]\ndrift = 0.2\n[run]\ndevices = ["cpu"]\n[contours]\nrois = ["a.*"]\n'
    out.append(Original("settings", settings, load_settings, ".toml"))
    mappings = (own_folder("mappings") / "segments.csv").read_bytes()[:20_000]
    out.append(Original("mappings", mappings, _read_mappings, ".csv"))
    return out


def _models(folder: Path) -> list[Original]:
    folder.mkdir(parents=True)
    out = []
    weights = {"network_weights": {f"layer.{n}": torch.ones(8, 4) for n in range(6)}, "epoch": 3}
    for modern in (True, False):
        torch.save(weights, folder / "model.pth", _use_new_zipfile_serialization=modern)
        out.append(Original("model", (folder / "model.pth").read_bytes(), load_restricted, ".pth"))
    plans = {"spacing": np.arange(3.0), "stages": {0: {"patch": [1, 2, 3]}}, "name": "plans"}
    pickles = (pickle.dumps(plans, protocol=protocol) for protocol in (0, 2, 4))
    return [*out, *(Original("model", content, load_pickle_restricted, ".pkl") for content in pickles)]
