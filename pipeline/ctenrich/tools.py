"""Run external programs (no shell, checked exit codes, captured output, time limits); find optional packages."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import ToolError, UsageError
from ctenrich.reasons import Reason

__all__ = ["ToolResult", "find_tool", "need_package", "run_tool"]


@dataclass(frozen=True)
class ToolResult:
    """Output and exit code of a program."""

    arguments: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def find_tool(name: str) -> Path:
    """Find a program in the folder of this Python (packages with binaries), then on the PATH.

    Raises
    ------
    ToolError
        TOOL_MISSING if it is not installed.
    """
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    if found is None:
        raise ToolError(Reason.TOOL_MISSING, f"the program {name} is not installed", "install it or put it on the PATH")
    return Path(found)


def need_package(package: str, *, extra: str, purpose: str) -> None:
    """Check that an optional package is installed, without importing it.

    Parameters
    ----------
    package : str
        Name under which it is imported.
    extra : str
        Extra of ctenrich that installs it.
    purpose : str
        What needs it, e.g. a setting; it begins the message.

    Raises
    ------
    UsageError
        MISSING_EXTRA, with the command that installs it.
    """
    unimportable = package in sys.modules and sys.modules[package] is None
    if unimportable or importlib.util.find_spec(package) is None:
        hint = f"pip install 'ctenrich[{extra}]', or in a checkout: scripts/install.sh .venv {extra}"
        raise UsageError(Reason.MISSING_EXTRA, f"{purpose} needs the package {package}", hint)


def run_tool(
    arguments: Sequence[str | Path], *, timeout: float = 600, check: bool = True, cwd: Path | None = None
) -> ToolResult:
    """Run a program without a shell.

    Parameters
    ----------
    arguments : sequence of str or Path
        The program and its arguments.
    timeout : float
        Seconds.
    check : bool
        Whether an exit code other than 0 is an error.
    cwd : Path, optional
        Working directory.

    Returns
    -------
    ToolResult

    Raises
    ------
    ToolError
        TOOL_MISSING, TIMEOUT, or TOOL_FAILED if `check` and the exit code is not 0.
    """
    command = [str(a) for a in arguments]
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise ToolError(Reason.TOOL_MISSING, f"the program {name} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(Reason.TIMEOUT, f"{name} did not finish within {timeout:g} s") from error
    if check and done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise ToolError(Reason.TOOL_FAILED, f"{name} ended with exit code {done.returncode}: {last[0][:300]}")
    return ToolResult(tuple(command), done.returncode, done.stdout, done.stderr)
