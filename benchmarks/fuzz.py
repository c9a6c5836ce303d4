"""Damaged files of every kind that ctenrich reads: each ends in a result or a typed error, in bounded time and memory.

``python -m benchmarks.fuzz [--seed N] [--files N] [--series N] [--seconds S] [--quick]``

Valid files are made, their bytes are changed by seeded mutators, and the program's own readers read them. A finding is
an error that is not a `CtenrichError`, more than 10 s of CPU time for one file, more than 2 GB of memory, an export
whose outcomes do not add up, or a volume that differs from the pixels that pydicom reads, or that lacks a slice of its
folder without an issue.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import torch
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests.support.cohorts import make_cohort
from tests.support.encode_cases import make_expert_masks, make_series, make_shape
from tests.support.small_series import Small, folder_entry, small_pixels, small_slice, write_small

from ctenrich.catalog.headers import read_header
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.ct_slice import read_slice
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import CtenrichError
from ctenrich.inference.checkpoint import load_restricted
from ctenrich.inference.restricted_unpickler import load_pickle_restricted
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.publish.export import export_objects
from ctenrich.records import State
from ctenrich.select.files import read_cohort
from ctenrich.settings import ConvertSettings, Settings
from ctenrich.stages.convert import convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace, load_array

SECONDS_OF_FILE = 10
MEMORY = 2 * 1024**3
SETTINGS = Settings(convert=ConvertSettings(nifti=False))
EXPORTED_EVERY = 25
"""One of so many damaged SEGs is exported too, beside a good one: exports take longer than readings."""


class _HangError(BaseException):
    """A file took more CPU time than it may; not an `Exception`, so that no reader takes it for damage."""


@dataclass
class Tally:
    """Counts and findings."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        counts = {"accepted": dict(self.accepted), "refused": dict(self.refused)}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return counts | {"findings": self.findings, "slowest_s": round(self.slowest, 2), "peak_memory_mb": peak}


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


# ---------------------------------------------------------------- valid files and their readers


Reader = Callable[[Path], object]


def _read_ct(path: Path) -> None:
    read_header(path)
    open_dataset(path)
    read_slice(path)


def _read_ledger(path: Path) -> None:
    with LedgerReader(path) as ledger:
        ledger.plan()
        ledger.outcomes()


def make_originals(folder: Path) -> list[tuple[str, bytes, Reader]]:
    """One or more valid files of each kind, with what reads them."""
    out: list[tuple[str, bytes, Reader]] = []
    small = small_slice(Small(), 0)
    for syntax in ("1.2.840.10008.1.2.1", ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        small.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        small.save_as(folder / "ct.dcm", enforce_file_format=True)
        out.append(("header", (folder / "ct.dcm").read_bytes(), _read_ct))
    cohort = make_cohort(folder / "study", 1)
    plan = next(p for p in (folder / "study").rglob("*.dcm") if pydicom.dcmread(p).Modality == "RTSTRUCT")
    out.append(("rtstruct", plan.read_bytes(), load_contours))
    out.append(("cohort", cohort.read_bytes(), read_cohort))
    with Ledger(folder / "ledger.sqlite"):
        pass
    out.append(("ledger", (folder / "ledger.sqlite").read_bytes(), _read_ledger))
    workspace = Workspace(folder / "objects")
    series, volume = make_series(folder / "source")
    masks = make_expert_masks(series, workspace)
    seg = encode_seg(masks, volume, series, settings=SETTINGS, workspace=workspace)
    report = encode_shape_sr(make_shape(masks), masks, seg, series, settings=SETTINGS, workspace=workspace)
    uid = series.series_instance_uid
    out.append(("seg", workspace.resolve(uid, seg.path).read_bytes(), read_seg))
    out.append(("sr", workspace.resolve(uid, report.path).read_bytes(), lambda path: rows_of(read_sr(path))))
    weights = {"network_weights": {f"layer.{n}": torch.ones(8, 4) for n in range(6)}, "epoch": 3}
    for modern in (True, False):
        torch.save(weights, folder / "model.pth", _use_new_zipfile_serialization=modern)
        out.append(("model", (folder / "model.pth").read_bytes(), load_restricted))
    plans = {"spacing": np.arange(3.0), "stages": {0: {"patch": [1, 2, 3]}}, "name": "plans"}
    return [*out, *(("model", pickle.dumps(plans, protocol=n), load_pickle_restricted) for n in (0, 2, 4))]


# ---------------------------------------------------------------- running


def _raise_hang(*_: object) -> None:
    raise _HangError


def attempt(kind: str, name: str, act: Callable[[], object], tally: Tally) -> None:
    """Do something with a damaged file, and note how it ends."""
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS_OF_FILE)
    try:
        act()
        tally.accepted[kind] += 1
    except CtenrichError:
        tally.refused[kind] += 1
    except _HangError:
        tally.findings.append(f"{kind} {name}: more than {SECONDS_OF_FILE} s")
    except AssertionError as error:
        tally.findings.append(f"{kind} {name}: {error}")
    except Exception as error:  # noqa: BLE001  this is what is looked for
        tally.findings.append(f"{kind} {name}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        tally.slowest = max(tally.slowest, time.process_time() - begin)


Originals = list[tuple[str, bytes, Reader]]


def fuzz_files(originals: Originals, count: int, rng: random.Random, tally: Tally, until: float) -> None:
    """Read `count` damaged files, of each kind in turn."""
    with tempfile.TemporaryDirectory() as folder:
        _fuzz_files_in(Path(folder), originals, count, rng, tally, until)


def _fuzz_files_in(
    folder: Path, originals: Originals, count: int, rng: random.Random, tally: Tally, until: float
) -> None:
    good = next(content for kind, content, _ in originals if kind == "seg")
    for number in range(count):
        if time.monotonic() > until:
            return
        kind, content, read = originals[number % len(originals)]
        path = folder / "damaged" / f"file.{'dcm' if kind in ('header', 'rtstruct', 'seg', 'sr') else kind}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(mutate(content, rng))
        attempt(kind, f"{number}", lambda path=path, read=read: read(path), tally)  # type: ignore[misc]
        if kind == "seg" and (number // len(originals)) % EXPORTED_EVERY == 0:
            attempt("export", f"{number}", lambda path=path: _export_beside_good(path, good), tally)  # type: ignore[misc]
        path.unlink()
        for leftover in path.parent.glob(f"{path.name}-*"):
            leftover.unlink()


def _export_beside_good(path: Path, good: bytes) -> None:
    """A damaged object does not end the export of another, and the outcomes add up."""
    folder = path.parent / "both"
    folder.mkdir()
    try:
        shutil.copyfile(path, folder / "damaged.dcm")
        (folder / "good.dcm").write_bytes(good)
        export = export_objects([folder], "nifti", folder / "out")
        states = {state: export.count(state) for state in State}
        assert sum(states.values()) == len(export.objects) <= 2, f"the outcomes do not add up: {states}"
        assert states[State.DONE] >= 1, "the good object was not exported"
        assert all(p.is_file() for p in export.files), "a listed file does not exist"
    finally:
        shutil.rmtree(folder)


def fuzz_series(count: int, rng: random.Random, folder: Path, tally: Tally, until: float) -> None:
    """Sort and convert `count` series with damaged, missing and doubled files."""
    for number in range(count):
        if time.monotonic() > until:
            return
        here = folder / "series"
        paths = write_small(here / "in")
        for path in rng.sample(paths, rng.choice((1, 1, 2))):
            match rng.randrange(6):
                case 0:
                    path.unlink()
                case 1:
                    path.with_name(f"copy-{path.name}").write_bytes(mutate(path.read_bytes(), rng))
                case _:
                    path.write_bytes(mutate(path.read_bytes(), rng))
        attempt("series", f"{number}", lambda here=here: _convert_and_compare(here), tally)  # type: ignore[misc]
        shutil.rmtree(here)


def _convert_and_compare(here: Path) -> None:
    workspace = Workspace(here / "run")
    fetched = fetch_series(folder_entry(here / "in"), settings=SETTINGS, workspace=workspace)
    series = sort_series(fetched, settings=SETTINGS, workspace=workspace)
    volume = convert_series(series, settings=SETTINGS, workspace=workspace)
    array = load_array(workspace.resolve(series.series_instance_uid, volume.array_path))
    readable = _pixels_by_pydicom(here / "in")
    for k, item in enumerate(series.slices):
        expected = readable.get(item.sop_instance_uid) or _pixels_before_damage(item.sop_instance_uid)
        assert any(np.array_equal(array[k], pixels) for pixels in expected), f"slice {k} differs from pydicom's pixels"
    files = sum(1 for _ in (here / "in").iterdir())
    issues = (*series.issues, *volume.issues)
    assert len(series.slices) >= files or issues, f"{files} files, {len(series.slices)} slices and no issue"


def _pixels_before_damage(uid: str) -> list[np.ndarray]:
    """The slice as it was written, where pydicom cannot read its damaged file at all."""
    number = uid.rpartition(".")[2]
    return [small_pixels(Small(), int(number) - 1).astype(np.int32) - 1024] if number.isdigit() else []


def _pixels_by_pydicom(folder: Path) -> Mapping[str, list[np.ndarray]]:
    out: dict[str, list[np.ndarray]] = {}
    for path in folder.iterdir():
        try:
            data = pydicom.dcmread(path, force=True)
            try:
                stored = data.pixel_array.astype(np.float64)
            except Exception:  # noqa: BLE001  pydicom asks for more elements than the numbers depend on
                kind = "<i2" if data.PixelRepresentation else "<u2"
                count = data.Rows * data.Columns
                stored = np.frombuffer(data.PixelData, kind, count).reshape(data.Rows, -1).astype(np.float64)
            values = stored * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
            out.setdefault(str(data.SOPInstanceUID).strip(" \0"), []).append(np.round(values))
        except Exception:  # noqa: BLE001  a file that pydicom cannot read has no pixels to compare with
            continue
    return out


def main() -> int:
    """Run the mutators; prints a JSON object, and returns 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--series", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so much time")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the files and series")
    options = parser.parse_args()
    scale = 20 if options.quick else 1
    files, series = options.files // scale, options.series // scale
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    with tempfile.TemporaryDirectory() as made:
        originals = make_originals(Path(made))
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _raise_hang)
    tally = Tally()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        share = options.seconds * 0.3
        fuzz_series(series, random.Random(options.seed), Path(folder), tally, begin + share)
        fuzz_files(originals, files, random.Random(options.seed), tally, begin + options.seconds)
    print(json.dumps({"seed": options.seed, **tally.as_dict(), "seconds": round(time.monotonic() - begin)}, indent=1))
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
