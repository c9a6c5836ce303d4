"""Fetch: ctenrich compared with a serial download, from emulated stores on the loopback (moto's S3, the GCS emulator).

``python -m benchmarks.fetch [--quick]``. 200 objects of 256 kB (40 with ``--quick``) in one series; bytes compared.
The stores are Python programs on the same machine that answer one request at a time, so that parallel requests gain
nothing directly (Google's emulator gets four at a time: connections beyond its queue wait a second for TCP to retry);
behind a proxy that delays answers by 50 ms, like a distant store, parallel requests pay.
The CPU column is the share of time that the machine was busy.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
from tests.support.storage_servers import FaultyProxy, gcs_bucket, gcs_put, gcs_server, s3_bucket, s3_put, s3_server

from ctenrich.records import Instance, SeriesEntry
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.fetch import prefetch_series
from ctenrich.storage import open_storage
from ctenrich.storage.base import Transfer
from ctenrich.workspace import Workspace

SIZE = 256 * 1024


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and the share of all cores that was busy meanwhile."""
    psutil.cpu_percent()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, psutil.cpu_percent() / 100


def serial_gs(url: str, keys: list[str], folder: Path) -> None:
    """One object after another with Google's client, as its documentation shows it."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(
        project="anonymous", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )
    for key in keys:
        client.bucket("bench").blob(key).download_to_filename(str(folder / Path(key).name))


def serial_s3(url: str, keys: list[str], folder: Path) -> None:
    """One object after another, one s5cmd each, as the published pipeline's loop did for series."""
    import subprocess

    from ctenrich.tools import find_tool

    command = [str(find_tool("s5cmd")), "--no-sign-request", "--endpoint-url", url, "cp"]
    for key in keys:
        target = str(folder / Path(key).name)
        subprocess.run([*command, f"s3://bench/{key}", target], check=True, capture_output=True)


def plain_http(base: str, keys: list[str], folder: Path) -> None:
    """One GET after another, nothing else: the least that a serial download can cost."""
    for key in keys:
        name = quote(key, safe="") if "/o/" in base else key
        suffix = "?alt=media" if "/o/" in base else ""
        with urllib.request.urlopen(f"{base}{name}{suffix}") as answer:
            (folder / Path(key).name).write_bytes(answer.read())


def compare(label: str, scheme: str, url: str, objects: dict[str, bytes], parallel: int = 32) -> None:
    """Fetch the objects three ways, compare the bytes, print the times."""
    keys = list(objects)
    with tempfile.TemporaryDirectory() as name:
        folders = {kind: Path(name, kind) for kind in ("ours", "serial", "plain")}
        for folder in folders.values():
            folder.mkdir()
        settings = FetchSettings(gs_endpoint=url, s3_endpoint=url, parallel_objects=parallel)
        storage = open_storage(f"{scheme}://bench/", settings)
        wanted = [Transfer(f"{scheme}://bench/{k}", folders["ours"] / Path(k).name) for k in keys]
        base = f"{url}/download/storage/v1/b/bench/o/" if scheme == "gs" else f"{url}/bench/"
        serial = serial_gs if scheme == "gs" else serial_s3
        client = "Google's client" if scheme == "gs" else "one s5cmd an object"
        times = {
            "ctenrich, every object checked": timed(lambda: storage.download(wanted)),
            f"serial, {client}": timed(lambda: serial(url, keys, folders["serial"])),
            "serial, plain HTTP, nothing checked": timed(lambda: plain_http(base, keys, folders["plain"])),
        }
        for folder in folders.values():
            assert {f"series/{p.name}": p.read_bytes() for p in folder.iterdir()} == objects
    mine = next(iter(times.values()))[0]
    for what, (seconds, busy) in times.items():
        print(f"{label + ': ' + what:58}{seconds:8.2f}{seconds / mine:12.2f}{busy:10.0%}", flush=True)


def together(url: str, objects: dict[str, bytes], series: int = 8) -> None:
    """Fetch the objects as several series: by one s5cmd, and by one s5cmd per series."""
    entries = []
    for n in range(series):
        mine = [k for k in objects if int(Path(k).stem) % series == n]
        instances = tuple(Instance("", f"s3://bench/{k}", md5=hashlib.md5(objects[k]).hexdigest()) for k in mine)
        entries.append(SeriesEntry("bench", "P", f"1.2.{n}", f"1.2.{n}.1", instances))
    settings = Settings(fetch=FetchSettings(s3_endpoint=url))
    with tempfile.TemporaryDirectory() as name:
        folders = Workspace(Path(name, "one")), Workspace(Path(name, "each"))
        one, busy = timed(lambda: prefetch_series(entries, settings=settings, workspace=folders[0]))
        each, idle = timed(lambda: [prefetch_series([e], settings=settings, workspace=folders[1]) for e in entries])
        for folder in folders:
            assert len(list(folder.root.glob("series/*/source/*.dcm"))) == len(objects)
    print(f"{f's3, 50 ms away: {series} series by one s5cmd':58}{one:8.2f}{1:12.2f}{busy:10.0%}")
    print(
        f"{f's3, 50 ms away: {series} series, one s5cmd each':58}{each:8.2f}{each / one:12.2f}{idle:10.0%}", flush=True
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 objects")
    count = 40 if parser.parse_args().quick else 200
    warnings.simplefilter("ignore")
    os.environ.setdefault("no_proxy", "127.0.0.1")
    rng = np.random.default_rng(1)
    objects = {f"series/{n:03d}.dcm": rng.bytes(SIZE) for n in range(count)}
    print(f"{count} objects of {SIZE // 1024} kB\n{'what':58}{'s':>8}{'times ours':>12}{'CPU busy':>10}")
    for store in (("gs", gcs_server, gcs_bucket, gcs_put), ("s3", s3_server, s3_bucket, s3_put)):
        scheme, server, bucket, put = store
        with server() as url:
            bucket(url, "bench")
            for key, content in objects.items():
                put(url, "bench", key, content)
            compare(f"{scheme}, direct", scheme, url, objects, parallel=4 if scheme == "gs" else 32)
            with FaultyProxy(url, lambda *_: "late") as proxy:
                compare(f"{scheme}, 50 ms away", scheme, proxy.url, objects)
                if scheme == "s3":
                    together(proxy.url, objects)
    return 0


if __name__ == "__main__":
    sys.exit(main())
