"""External programs: their output, exit codes and time limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctenrich.errors import ToolError
from ctenrich.reasons import Reason
from ctenrich.tools import find_tool, run_tool


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_arguments_are_returned_as_they_are(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd()); print('warn', file=sys.stderr)"
    done = run_tool([*python(code), "a b", "$(touch x)", tmp_path], cwd=tmp_path)
    assert done.stdout == f"{['a b', '$(touch x)', str(tmp_path)]} {tmp_path}\n"
    assert (done.stderr, done.returncode) == ("warn\n", 0)
    assert done.arguments[0] == sys.executable
    assert list(tmp_path.iterdir()) == [], "no shell reads the arguments"


def test_a_bad_exit_code_is_an_error_with_the_last_line() -> None:
    code = "import sys; print('first', file=sys.stderr); print('the reason', file=sys.stderr); sys.exit(3)"
    with pytest.raises(ToolError, match=r"exit code 3: the reason$") as caught:
        run_tool(python(code))
    assert caught.value.reason is Reason.TOOL_FAILED
    assert run_tool(python(code), check=False).returncode == 3


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(ToolError) as caught:
        run_tool(python("import time; time.sleep(60)"), timeout=0.5)
    assert caught.value.reason is Reason.TIMEOUT


def test_a_program_waits_for_no_input_and_may_print_any_byte() -> None:
    done = run_tool(python(r"import sys; sys.stdout.buffer.write(b'\xff' + sys.stdin.buffer.read())"))
    assert done.stdout == "\ufffd"


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no-such-program is not installed") as caught:
        find_tool("no-such-program")
    assert caught.value.reason is Reason.TOOL_MISSING
    with pytest.raises(ToolError) as caught:
        run_tool([tmp_path / "no-such-program"])
    assert caught.value.reason is Reason.TOOL_MISSING


def test_programs_beside_python_come_before_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("own", "path"):
        program = tmp_path / folder / "tool"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert find_tool("tool") == tmp_path / "path" / "tool"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own" / "python"))
    assert find_tool("tool") == tmp_path / "own" / "tool"
