"""Run PixelMed's SR validator (Java, optional) on one file."""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cache
from pathlib import Path

from ctenrich.errors import ToolError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.tools import find_tool, run_tool

__all__ = ["JAR_VARIABLE", "find_jar", "run_pixelmed"]

JAR_VARIABLE = "CTENRICH_PIXELMED_JAR"
_FOLDER = Path("/usr/share/java")
_LIMITS = ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")
_TIMEOUT = 300.0
_LINE = re.compile(r"^(Error|Warning|Found|Fatal)\b[: -]*(.*)$")


def find_jar() -> Path:
    """Find pixelmed.jar: named by CTENRICH_PIXELMED_JAR, otherwise where Debian installs it.

    Raises
    ------
    ToolError
        TOOL_MISSING.
    """
    jar = Path(os.environ.get(JAR_VARIABLE) or _FOLDER / "pixelmed.jar")
    if not jar.is_file():
        hint = f"install the Debian package libpixelmed-java, or name the file in {JAR_VARIABLE}"
        raise ToolError(Reason.TOOL_MISSING, "pixelmed.jar is not installed", hint)
    return jar


def run_pixelmed(path: Path, about: str) -> list[Issue]:
    """Run DicomSRValidator; equal lines are counted.

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
    result = run_tool([*_validator_command(), path], timeout=_TIMEOUT, check=False)
    text = result.stdout + "\n" + result.stderr
    if result.returncode != 0 or "Exception in thread" in text:
        last = (result.stderr.strip().splitlines() or ["no output"])[0][:200]
        return [Issue("pixelmed", Severity.ERROR, about, f"the validator did not finish: {last}", "pixelmed")]
    counted = Counter(line.strip() for line in text.splitlines())
    return [
        _pixelmed_issue(line, count, about) for line, count in counted.items() if line.startswith(("Error", "Warning"))
    ]


def _pixelmed_issue(line: str, count: int, about: str) -> Issue:
    severity = Severity.ERROR if line.startswith("Error") else Severity.WARNING
    times = f" ({count} times)" if count > 1 else ""
    return Issue("pixelmed", severity, about, line.split(":", 1)[-1].strip()[:500] + times, "pixelmed")


@cache
def _validator_command() -> tuple[str, ...]:
    jar = find_jar()
    limits = [f"-Djdk.xml.{name}=0" for name in _LIMITS]
    path = f"{jar}{os.pathsep}{jar.parent}/*"
    java = str(find_tool("java"))
    return (java, *limits, "-Djava.awt.headless=true", "-cp", path, "com.pixelmed.validate.DicomSRValidator")
