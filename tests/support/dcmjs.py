"""What dcmjs, the DICOM library of OHIF, reads of files."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ctenrich.tools import run_tool
from tests.conftest import skip_or_fail

_VERSION = "0.51.1"
_SCRIPT = Path(__file__).parent / "dcmjs_read.cjs"


def read_by_dcmjs(paths: Iterable[Path], folder: Path) -> list[dict[str, Any]]:
    """Modality, frames, segments, ROIs, numbers of each file; dcmjs is fetched into `folder`, or the test skipped."""
    if shutil.which("npm") is None:
        skip_or_fail("node", "npm is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "install", f"dcmjs@{_VERSION}", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        skip_or_fail("npm", "dcmjs cannot be fetched here")
    printed = run_tool(["node", _SCRIPT, folder / "node_modules", *paths]).stdout
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
