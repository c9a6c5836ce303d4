"""The listener beside Orthanc, and through kills, large objects and many connections.

``python -m benchmarks.listener [--quick] [--kills N] [--delivery-kills N] [--images N] [--rounds N] [--connects N]
[--aborts N] [--gigabytes N] [--study FOLDER] [--seed N]``

``--kills 0`` and ``--delivery-kills 0`` leave the campaigns out; so do ``--rounds 0``, ``--images 0``,
``--connects 0``, ``--aborts 0`` and ``--gigabytes 0`` with the other parts. ``--study FOLDER`` adds the time from the
last image of a study to its objects, beside that of ``ctenrich run`` on the images that were received. Senders are
dcmtk's storescu and a STOW client; TCP_NODELAY=1 is in the environment of every program.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tests.publish.test_objects import free_port, program
from tests.support.delivery_kills import delivery_campaign
from tests.support.listener_kills import campaign

from ctenrich.listener.cases import cases_of
from ctenrich.listener.database import StationDatabase
from ctenrich.phantom import PhantomOptions, write_phantom_study

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
SLICES = PhantomOptions(seed=5, rows=512, columns=512, pixel_spacing=(0.8, 0.8), slices=90, slice_spacing=3.0)
"""A study like a CT of a chest: 90 slices of 525 kB."""
SIZES = {
    "kills": (100, 15),
    "delivery-kills": (100, 15),
    "rounds": (3, 1),
    "images": (10_000, 500),
    "connects": (10_000, 500),
    "aborts": (100, 5),
    "gigabytes": (1.0, 0.1),
}
"""Option -> size of its part, and that with ``--quick``."""


@contextmanager
def listening(folder: Path, port: int, *options: str) -> Iterator[psutil.Process]:
    """A listener that runs nothing unless options ask for it; yields the process that receives."""
    folder.mkdir(parents=True)
    (folder / "station.toml").write_text("[limits]\nmax_associations = 64\nmax_per_host = 64\nreserve = 0\n")
    command = [sys.executable, "-m", "ctenrich.cli.main", "listen", str(folder), "--dicom", f"127.0.0.1:{port}"]
    command += ["--peer", "*@127.0.0.1", "--close", "quiet:6h", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        wait_for_port(port)
        children = psutil.Process(process.pid).children()
        yield next(child for child in children if "ctenrich.listener.receiver" in child.cmdline())
    finally:
        process.terminate()
        process.wait(90)


def wait_for_port(port: int) -> None:
    """Wait until a program listens."""
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("nothing listens")


@contextmanager
def orthanc(folder: Path, port: int) -> Iterator[psutil.Process]:
    """Orthanc that synchronises every file; yields its process."""
    folder.mkdir(parents=True)
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "HttpServerEnabled": False,
        "DicomPort": port, "DicomAet": "CTENRICH", "DicomAlwaysAllowStore": True, "SyncStorageArea": True,
        "UnknownSopClassAccepted": True,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    os.environ["TCP_NODELAY"] = "1"
    with program([shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(folder / "orthanc.json")], port):
        children = psutil.Process().children()
        yield next(child for child in children if str(folder / "orthanc.json") in child.cmdline())


def send(port: int, parts: list[list[Path]], *options: str) -> float:
    """Send each part over an association of its own, all at once; `options` are storescu's. Images per second."""
    command = ["storescu", "-R", *options, "-aec", "CTENRICH", "127.0.0.1", str(port)]
    started = time.monotonic()
    running = [subprocess.Popen([*command, *map(str, part)], env=ENVIRONMENT) for part in parts]
    codes = [one.wait() for one in running]
    assert not any(codes)
    return sum(map(len, parts)) / (time.monotonic() - started)


def throughput(folder: Path, rounds: int) -> dict[str, Any]:
    """Images per second of listener and Orthanc in turn, on one and on four associations: medians and their ratios.

    The processor time is that of the process that receives, user and system.
    """
    write_phantom_study(folder / "study", SLICES)
    files = sorted((folder / "study").rglob("*.dcm"))
    found: dict[str, list[float]] = {}
    programs = {"listener": listening, "Orthanc": orthanc}
    for number in range(rounds):
        for count in (1, 4):
            parts = [files[at::count] for at in range(count)]
            for name, start in programs.items():
                port, place = free_port(), folder / f"{name}{number}-{count}"
                with start(place, port) as receiver:
                    before = sum(receiver.cpu_times()[:2])
                    found.setdefault(f"{name}, {count}", []).append(send(port, parts))
                    used = 1000 * (sum(receiver.cpu_times()[:2]) - before) / len(files)
                    found.setdefault(f"{name}, {count}, ms of processor per image", []).append(used)
                shutil.rmtree(place)
    speed = {name: round(median(values), 2) for name, values in found.items()}
    ratios = {f"ratio, {n}": round(speed[f"listener, {n}"] / speed[f"Orthanc, {n}"], 2) for n in (1, 4)}
    return {**speed, **ratios}


def memory(folder: Path, images: int, gigabytes: float, connects: int, aborts: int) -> dict[str, Any]:
    """Resident memory of the receiving process, MB: at its start, after each of the parts that are asked for."""
    port = free_port()
    found: dict[str, Any] = {}
    with listening(folder / "memory", port) as receiver:

        def resident() -> int:
            return round(receiver.memory_info().rss / 1e6)

        found["start"] = resident()
        if images:
            small = replace(SLICES, rows=32, columns=32, pixel_spacing=(12.0, 12.0), slices=100)
            for batch in range(images // 100):
                write_phantom_study(folder / "batch", replace(small, seed=batch))
                send(port, [sorted((folder / "batch").rglob("*.dcm"))])
                shutil.rmtree(folder / "batch")
            found[f"after {images} images"] = resident()
        if gigabytes:
            send(port, [[large_object(folder / "large.dcm", int(gigabytes * 1e9))]])
            found[f"after an object of {gigabytes} GB"] = resident()
        if connects:
            before = receiver.num_threads() + receiver.num_fds()
            for _ in range(connects):
                with socket.create_connection(("127.0.0.1", port)):
                    pass
            time.sleep(2)
            found[f"after {connects} connections"] = resident()
            found["threads and handles more than before"] = receiver.num_threads() + receiver.num_fds() - before
            assert subprocess.run(["echoscu", "-aec", "CTENRICH", "127.0.0.1", str(port)], check=False).returncode == 0
        if aborts:
            write_phantom_study(folder / "aborted", SLICES)
            files = sorted((folder / "aborted").rglob("*.dcm"))
            for _ in range(aborts):
                send(port, [files], "--abort")
            found[f"after {aborts} studies of {len(files)} images that ended in an abort"] = resident()
    return found


def latency(folder: Path, study: Path, quiet: float) -> dict[str, Any]:
    """Seconds from the last image of a study to its written objects, and those of a run on the images received."""
    port, asked = free_port(), ["--segmenter", "expert"]
    with listening(folder / "latency", port, "--close", f"quiet:{quiet}s", *asked):
        send(port, [[path for path in sorted(study.rglob("*")) if path.is_file()]])
        last = time.time()
        with StationDatabase(folder / "latency" / "station.sqlite", read_only=True) as database:
            while not (rows := [row for row in cases_of(database) if row.ended]):
                time.sleep(0.2)
    seconds = (rows[0].ended or 0.0) - last
    case = folder / "latency" / "cases" / "000001" / "r1"
    command = [sys.executable, "-m", "ctenrich.cli.main", "run", str(case / "images"), "--out", str(folder / "run")]
    started = time.time()
    subprocess.run([*command, *asked], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = time.time() - started
    objects = {path.name: path.read_bytes() for path in (case / "run" / "series").glob("*/*/objects/*.dcm")}
    again = {path.name: path.read_bytes() for path in (folder / "run" / "series").glob("*/*/objects/*.dcm")}
    return {
        "state": rows[0].state.value,
        "from the last image to the objects, s": round(seconds, 1),
        "quiet time, s": quiet,
        "run on the same images, s": round(run, 1),
        "ratio without the quiet time": round((seconds - quiet) / run, 2),
        "objects": len(objects),
        "objects with the same bytes": sum(again.get(name) == data for name, data in objects.items()),
    }


def large_object(path: Path, size: int) -> Path:
    """A multi-frame object of about `size` bytes, written in bounded memory."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.2", generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = generate_uid(), generate_uid(), "OT"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    length = size // 2 * 2
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\0\0" + length.to_bytes(4, "little"))
        block = random.Random(1).randbytes(1 << 20)
        left = length
        while left:
            left -= file.write(block[:left])
    return path


def _report_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run the parts; ends with 1 if an acknowledged object is lost, changed or doubled, or a case does not end well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes")
    for name, (full, quick) in SIZES.items():
        parser.add_argument(f"--{name}", type=type(full), help=f"default: {full}; with --quick {quick}")
    parser.add_argument("--study", type=Path, help="folder of a study with contours")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for name, sizes in SIZES.items():
        option = name.replace("-", "_")
        if getattr(options, option) is None:
            setattr(options, option, sizes[options.quick])
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ctenrich-listener-") as name:
        folder = Path(name)
        if options.rounds:
            print(json.dumps({"images per second": throughput(folder, options.rounds)}, indent=1), flush=True)
        if options.images or options.gigabytes or options.connects or options.aborts:
            sizes = memory(folder, options.images, options.gigabytes, options.connects, options.aborts)
            print(json.dumps({"memory, MB": sizes}, indent=1), flush=True)
        if options.study:
            print(json.dumps({"latency": latency(folder, options.study, quiet=5)}, indent=1), flush=True)
        if options.kills:
            result = campaign(
                folder / "kills", kills=options.kills, rng=random.Random(options.seed), progress=_report_progress
            )
            print(json.dumps({"kills": asdict(result)}, indent=1), flush=True)
            bad = result.lost + result.different + result.twice + result.unfinished + result.failed
        if options.delivery_kills:
            sent = delivery_campaign(
                folder / "deliveries",
                kills=options.delivery_kills,
                rng=random.Random(options.seed),
                progress=_report_progress,
            )
            print(json.dumps({"kills in steps and deliveries": asdict(sent)}, indent=1), flush=True)
            bad += sent.missing + sent.different + sent.more + sent.not_held + sent.uncounted + sent.unfinished
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
