"""Read foreign files of a model in a child process with limits of memory and time.

The child is a new Python interpreter. It gets a request as JSON on its standard input, writes its results as files
(safetensors, JSON) into a folder that the request names, and answers with JSON on its standard output; nothing is
pickled in either direction. Memory and CPU time are limited by the operating system (``setrlimit``; Linux and macOS).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctenrich.errors import CtenrichError, InputError, ModelError
from ctenrich.reasons import Reason

__all__ = ["run_isolated", "serve_isolated"]

_MEMORY, _MEMORY_PER_BYTE = 1536 * 1024**2, 6
"""Bytes that a child may take beyond its own libraries: a base, and a multiple of the input."""
_SECONDS, _BYTES_PER_SECOND = 60, 10 * 1024**2
"""CPU time that a child may take: a base, and the input at a slow rate."""
_WALL_PER_CPU = 10
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


def run_isolated(module: str, request: Mapping[str, Any], *, input_bytes: int) -> None:
    """Run the ``__main__`` of a module, which calls `serve_isolated`, on a request.

    Parameters
    ----------
    module : str
        Name of a module of this package.
    request : mapping
        Values that JSON can express.
    input_bytes : int
        Size of the foreign files; memory and time are limited in proportion.

    Raises
    ------
    ModelError
        The child's own error; UNSAFE_WEIGHTS if it exceeds its limits, BAD_MODEL if it ends without an answer.
    InputError
        The child's own error, if it is one.
    """
    limits = {
        "memory": _MEMORY + _MEMORY_PER_BYTE * input_bytes,
        "seconds": _SECONDS + input_bytes // _BYTES_PER_SECOND,
    }
    path = os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-m", module]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({"request": request, "limits": limits}).encode(),
            capture_output=True,
            timeout=_WALL_PER_CPU * limits["seconds"],
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _limit_error(limits) from None
    except OSError as error:
        raise ModelError(
            Reason.BAD_MODEL, f"no process could be started to read the model: {error.strerror}"
        ) from error
    if -done.returncode in {signal.SIGXCPU, signal.SIGKILL}:
        raise _limit_error(limits)
    answer = _answer_of(done.stdout)
    if answer is None:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        message = f"reading the model ended without an answer (exit code {done.returncode})"
        raise ModelError(Reason.BAD_MODEL, message, last)
    if answer:
        kinds: dict[str, type[CtenrichError]] = {"InputError": InputError}
        raise kinds.get(answer["type"], ModelError)(Reason(answer["reason"]), answer["message"], answer["hint"])


def _answer_of(output: bytes) -> dict[str, str] | None:
    """The child's error, empty if there was none; None if it did not answer."""
    try:
        answer: dict[str, str] = json.loads(output)
    except ValueError:
        return None
    return answer


def _limit_error(limits: Mapping[str, int]) -> ModelError:
    message = f"reading the model takes more than {limits['memory'] >> 20} MB or {limits['seconds']} s"
    return ModelError(Reason.UNSAFE_WEIGHTS, message)


def serve_isolated(work: Callable[[Mapping[str, Any]], None]) -> None:
    """Do the work of a child: take the request, limit this process, answer.

    Everything that `work` needs is imported before, so that the limits apply to the foreign files alone.

    Parameters
    ----------
    work : callable
        Takes the request, and writes its results into files.
    """
    asked = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # the answer stays free of what libraries print
    _limit_this_process(**asked["limits"])
    answer: dict[str, str] = {}
    try:
        work(asked["request"])
    except CtenrichError as error:
        answer = {"type": type(error).__name__, "reason": error.reason.value}
        answer |= {"message": error.message, "hint": error.hint}
    except MemoryError:
        limit = _limit_error(asked["limits"])
        answer = {"type": "ModelError", "reason": limit.reason.value, "message": limit.message, "hint": ""}
    except Exception as error:  # noqa: BLE001  foreign files can fail in any way; the parent gets one typed error
        message = f"the model cannot be read ({type(error).__name__}: {str(error)[:200]})"
        answer = {"type": "ModelError", "reason": Reason.BAD_MODEL.value, "message": message, "hint": ""}
    output.write(json.dumps(answer))
    output.flush()


def _limit_this_process(memory: int, seconds: int) -> None:
    """Limit address space and CPU time beyond what this process has taken so far."""
    try:
        import resource  # Unix alone
    except ImportError:
        return
    import psutil  # the parent does not need it

    used = resource.getrusage(resource.RUSAGE_SELF)
    taken = psutil.Process().memory_info().vms
    wanted = {
        resource.RLIMIT_AS: taken + memory,
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + seconds,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in wanted.items():
        _, hard = resource.getrlimit(kind)
        chosen = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (chosen, hard))
