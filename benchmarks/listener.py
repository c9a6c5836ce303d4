"""The listener beside Orthanc, and through kills, large objects and many connections.

``python -m benchmarks.listener [--kills N] [--images N] [--rounds N] [--connects N] [--gigabytes N] [--seed N]``

``--kills 0`` leaves the campaign out; so do ``--rounds 0``, ``--images 0``, ``--connects 0`` and ``--gigabytes 0``
with the other parts.
Senders are dcmtk's storescu and a STOW client; TCP_NODELAY=1 is in the environment of every program.
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
from tests.support.listener_kills import campaign

from ctenrich.phantom import PhantomOptions, write_phantom_study

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
SLICES = PhantomOptions(seed=5, rows=512, columns=512, pixel_spacing=(0.8, 0.8), slices=90, slice_spacing=3.0)
"""A study like a CT of a chest: 90 slices of 525 kB."""


@contextmanager
def listening(folder: Path, port: int) -> Iterator[psutil.Process]:
    """A listener that runs nothing; yields the process that receives."""
    folder.mkdir(parents=True)
    (folder / "station.toml").write_text("[limits]\nmax_associations = 64\nmax_per_host = 64\nreserve = 0\n")
    command = [sys.executable, "-m", "ctenrich.cli.main", "listen", str(folder), "--dicom", f"127.0.0.1:{port}"]
    command += ["--peer", "*@127.0.0.1", "--close", "quiet:6h"]
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
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("nothing listens")


@contextmanager
def orthanc(folder: Path, port: int) -> Iterator[None]:
    """Orthanc that synchronises every file."""
    folder.mkdir(parents=True)
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "HttpServerEnabled": False,
        "DicomPort": port, "DicomAet": "CTENRICH", "DicomAlwaysAllowStore": True, "SyncStorageArea": True,
        "UnknownSopClassAccepted": True,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    os.environ["TCP_NODELAY"] = "1"
    with program([shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(folder / "orthanc.json")], port):
        yield


def send(port: int, parts: list[list[Path]]) -> float:
    """Send each part over an association of its own, all at once; returns images per second."""
    command = ["storescu", "-R", "-aec", "CTENRICH", "127.0.0.1", str(port)]
    started = time.monotonic()
    running = [subprocess.Popen([*command, *map(str, part)], env=ENVIRONMENT) for part in parts]
    codes = [one.wait() for one in running]
    assert not any(codes)
    return sum(map(len, parts)) / (time.monotonic() - started)


def throughput(folder: Path, rounds: int) -> dict[str, Any]:
    """Images per second of listener and Orthanc in turn, on one and on four associations: medians and their ratios."""
    write_phantom_study(folder / "study", SLICES)
    files = sorted((folder / "study").rglob("*.dcm"))
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for count in (1, 4):
            parts = [files[at::count] for at in range(count)]
            port = free_port()
            with listening(folder / f"listener{number}-{count}", port):
                found.setdefault(f"listener, {count}", []).append(send(port, parts))
            port = free_port()
            with orthanc(folder / f"orthanc{number}-{count}", port):
                found.setdefault(f"Orthanc, {count}", []).append(send(port, parts))
            for name in ("listener", "orthanc"):
                shutil.rmtree(folder / f"{name}{number}-{count}")
    speed = {name: round(median(values), 1) for name, values in found.items()}
    ratios = {f"ratio, {n}": round(speed[f"listener, {n}"] / speed[f"Orthanc, {n}"], 2) for n in (1, 4)}
    return {**speed, **ratios}


def memory(folder: Path, images: int, gigabytes: float, connects: int) -> dict[str, Any]:
    """Resident memory of the receiving process, MB: at its start, after images, one large object and connections."""
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
            threads = receiver.num_threads()
            for _ in range(connects):
                with socket.create_connection(("127.0.0.1", port)):
                    pass
            time.sleep(2)
            found[f"after {connects} connections"] = resident()
            found["threads and handles more than before"] = receiver.num_threads() - threads
            assert subprocess.run(["echoscu", "-aec", "CTENRICH", "127.0.0.1", str(port)], check=False).returncode == 0
    return found


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


def main() -> int:
    """Run the parts; ends with 1 if an acknowledged object is lost, changed or doubled, or a case does not end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--connects", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ctenrich-listener-") as name:
        folder = Path(name)
        if options.rounds:
            print(json.dumps({"images per second": throughput(folder, options.rounds)}, indent=1), flush=True)
        if options.images or options.gigabytes or options.connects:
            sizes = memory(folder, options.images, options.gigabytes, options.connects)
            print(json.dumps({"memory, MB": sizes}, indent=1), flush=True)
        if options.kills:
            result = campaign(folder / "kills", kills=options.kills, rng=random.Random(options.seed))
            print(json.dumps({"kills": asdict(result)}, indent=1), flush=True)
            bad = result.lost + result.different + result.twice + result.unfinished
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
