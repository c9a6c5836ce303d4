"""``--on-finish``: run a program of the user's at the end of a run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import typer

from ctenrich.errors import CtenrichError, UsageError
from ctenrich.reasons import Reason

__all__ = ["Finish", "finishing"]


@dataclass(kw_only=True)
class Finish:
    """How a run ended, for the program that follows it."""

    started: bool = False
    """Whether the run's folder was made; nothing follows a request that was refused."""
    outcome: str = "failed"
    """done, budget, interrupted, disk or failed."""
    exit_code: int = 1


@contextmanager
def finishing(command: str, out: Path) -> Iterator[Finish]:
    """Run a program after the block, however the block ends; its own failure is reported and changes nothing else.

    Parameters
    ----------
    command : str
        Program and arguments, split as a shell splits words, without a shell; empty: none.
    out : Path
        The run's folder.

    Yields
    ------
    Finish
        The block fills it in. The program gets it as environment variables: ``CTENRICH_RUN`` (absolute path of the
        folder), ``CTENRICH_OUTCOME``, ``CTENRICH_EXIT_CODE`` and ``CTENRICH_REPORT`` (path of the report, if there
        is one).

    Raises
    ------
    UsageError
        BAD_PARAMETER before the block, if the program does not exist or the quotes do not match.
    """
    words, finish = _words(command), Finish()
    try:
        yield finish
    except KeyboardInterrupt:
        finish.outcome, finish.exit_code = "interrupted", 3
        raise
    except CtenrichError as error:
        finish.outcome, finish.exit_code = "failed", error.exit_code
        raise
    finally:
        if words and finish.started:
            _call(words, out, finish)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(Reason.BAD_PARAMETER, f"--on-finish {command!r} cannot be read: {error}") from None
    if words and shutil.which(words[0]) is None:
        hint = "give a program that can be executed, with its path unless it is in PATH"
        raise UsageError(Reason.BAD_PARAMETER, f"--on-finish: there is no program {words[0]}", hint)
    return words


def _call(words: list[str], out: Path, finish: Finish) -> None:
    report = out.resolve() / "report" / "index.html"
    added = {
        "CTENRICH_RUN": str(out.resolve()),
        "CTENRICH_OUTCOME": finish.outcome,
        "CTENRICH_EXIT_CODE": str(finish.exit_code),
        "CTENRICH_REPORT": str(report) if report.is_file() else "",
    }
    try:
        out_stream, err_stream = _own(sys.stdout), _own(sys.stderr)
        code = subprocess.run(
            words, env={**os.environ, **added}, stdout=out_stream, stderr=err_stream, check=False
        ).returncode
    except OSError as error:
        typer.echo(f"--on-finish: {words[0]} cannot be run: {error.strerror}", err=True)
        return
    if code:
        typer.echo(f"--on-finish: {words[0]} ended with exit code {code}", err=True)


def _own(stream: TextIO) -> int | None:
    """File descriptor of a stream of Python: the console, which the descriptors 1 and 2 may not be."""
    try:
        stream.flush()
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
