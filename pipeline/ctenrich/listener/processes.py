"""Starts the processes of a listener and ends them with it, however it ends.

The parent passes the configuration as one line of JSON on the standard input of the child, and keeps that open: when
the parent has gone, killed or not, the child reads the end of the stream and exits. The child answers with one line of
JSON on its standard output: that it is ready, or why it is not.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.listener.config import StationConfig
from ctenrich.listener.station import Station
from ctenrich.reasons import Reason

__all__ = ["ChildProcess", "child_main"]

_READY_SECONDS = 60.0


class ChildProcess:
    """A process of the listener.

    Parameters
    ----------
    module : str
        Module that is run with ``python -m``; it calls :func:`child_main`.
    station : Station
        Its only argument; its standard error is appended to the station's log.
    config : StationConfig
        Passed on.
    lock : int
        Descriptor of the station's lock, which the process inherits.
    """

    def __init__(self, module: str, station: Station, config: StationConfig, lock: int) -> None:
        from pydantic import TypeAdapter

        self._module = module
        with station.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(station.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(TypeAdapter(StationConfig).dump_json(config) + b"\n")
            self._process.stdin.flush()

    def ready(self) -> dict[str, Any]:
        """Wait until the process is ready; returns what it reports.

        Raises
        ------
        UsageError
            What the process refused.
        InputError
            INTERNAL if it ended without a word.
        """
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _READY_SECONDS)
        line = self._process.stdout.readline() if readable else b""
        try:
            report: dict[str, Any] = json.loads(line)
        except ValueError:
            self.end(0)
            message = f"the process {self._module} did not start"
            raise InputError(Reason.INTERNAL, message, "see listener.log in the station's folder") from None
        if "error" in report:
            self.end(1)
            raise UsageError(Reason(report["error"]), report["message"], report.get("hint", ""))
        return report

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def end(self, seconds: float) -> None:
        """Ask it to end (SIGTERM), and kill it after some seconds."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def ask_to_end(self) -> None:
        """Send SIGTERM, without waiting."""
        with suppress(ProcessLookupError):
            self._process.terminate()


def child_main(body: Callable[[Station, StationConfig, threading.Event, Callable[..., None]], None]) -> int:
    """Run the body of a child process.

    Parameters
    ----------
    body : callable
        Gets the station, the configuration, an event that is set when it must end, and a function that reports that it
        is ready.

    Returns
    -------
    int
        Exit code.
    """
    from pydantic import TypeAdapter

    os.umask(0o077)
    atexit.register(gc.freeze)  # else Python looks for garbage among all objects when it ends, which may take seconds
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    station = Station(Path(sys.argv[1]))
    config = TypeAdapter(StationConfig).validate_json(_first_line())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no report

    def ready(**values: object) -> None:
        out.write(json.dumps(values) + "\n")
        out.flush()

    try:
        body(station, config, stop, ready)
    except CtenrichError as error:
        ready(error=error.reason.value, message=error.message, hint=error.hint)
        return error.exit_code
    except OSError as error:
        ready(error=Reason.IO_ERROR.value, message=error.strerror or type(error).__name__)
        return 1
    return 0


def _first_line() -> bytes:
    """Read the first line of the standard input, without a buffer: another thread waits for its end later."""
    line = bytearray()
    while not line.endswith(b"\n") and (data := os.read(0, 65536)):
        line += data
    return bytes(line)


def _exit_with_parent() -> None:
    """End this process at once when the parent has gone; nothing that was acknowledged is lost by it."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(3)
