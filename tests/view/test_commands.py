"""`ctenrich demo`, then `ctenrich view`, as a user types them: the overlay is on the screen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ctenrich.records import Product, ProductKind, SegmentMasks
from ctenrich.view import RunView
from ctenrich.workspace import Workspace, load_record
from tests.conftest import need_program
from tests.support.browser import chromium
from tests.support.view_screens import check_slice, complaints, overlay_of, scroll_to, wait_for_overlay

COMMAND = (sys.executable, "-m", "ctenrich.cli.main")


@contextmanager
def viewing(run: Path, *options: str) -> Iterator[str]:
    """The command, until Ctrl+C; gives the address that it prints."""
    command = [*COMMAND, "view", str(run), "--no-browser", "--port", "0", *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # Tests that a script runs in the background ignore Ctrl+C, and so would what they start.
    listens = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, env=environment, **pipes, **listens) as made:  # type: ignore[call-overload]
        try:
            assert made.stdout is not None
            line = made.stdout.readline()
            assert line.startswith("Open http://127.0.0.1:"), line + made.stdout.read()
            yield line.split()[1]
        finally:
            made.send_signal(signal.SIGINT)
            try:
                made.wait(20)
            finally:
                made.kill()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_demo_and_its_overlay(tmp_path: Path) -> None:
    named = os.environ.get("CTENRICH_OHIF", "")
    if not named:
        need_program("npm", "npm")
    done = subprocess.run(
        [*COMMAND, "demo", "--out", str(tmp_path / "demo")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    run = Workspace(tmp_path / "demo" / "run")
    last = done.stdout.replace("\n", "").rpartition("Report: ")[2]
    assert Path(last.strip()) == run.report / "index.html", "the path of the report is the last word"
    uid = RunView(run).series[0]
    (record,) = run.series_dir(uid).glob("nnunet*/masks.json")
    product = load_record(record, SegmentMasks).product
    assert isinstance(product, Product)
    assert product.kind == ProductKind.NNUNET
    overlay = overlay_of(run, uid, product)
    with viewing(run.root, "--series", uid, *(["--ohif", named] if named else [])) as url, chromium() as seen:
        page = seen.page
        page.goto(url, timeout=120_000)
        wait_for_overlay(page, overlay)
        checked = {check_slice(page, overlay, least=0.75)}
        filled = [k for k, plane in enumerate(overlay.union) if plane.sum() > 100]
        for index in (filled[3 * len(filled) // 4], filled[len(filled) // 2]):
            scroll_to(page, overlay, overlay.instance_numbers[index])
            checked.add(check_slice(page, overlay, least=0.75))
        assert len(checked) >= 2
        root = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        assert seen.outside(root) == []
        assert complaints(seen.errors) == []
