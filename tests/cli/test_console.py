"""What the terminal shows is text: no markup, no emoji, no control characters."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ctenrich.cli.console import print_table, progress_bars
from ctenrich.cli.text import printable

STRANGE = ("[hnsf'U]", "[/x]", "nnunet:heart:", "[bold]b[/bold]", "a\\b", "[link=http://x]y[/link]", ":skull:")


@pytest.mark.parametrize("text", STRANGE)
def test_cells_titles_and_columns_are_shown_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"Title {text}", ("n", f"column {text}"), [(1, text), (2.5, f"x {text} y")])
    shown = capsys.readouterr().out
    assert f"Title {text}" in shown
    assert f"column {text}" in shown
    assert f"x {text} y" in shown
    assert shown.count(text) == 4


@pytest.mark.parametrize("text", STRANGE)
def test_notes_and_tasks_are_shown_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as progress:
        progress.start(text, 2)
        progress.status(text, text)
        progress.note(f"note {text}")
        progress.advance(text)
        progress.finish(text)
    assert f"note {text}" in capsys.readouterr().err


def test_a_bar_on_a_terminal_shows_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress_bars() as progress:
        progress.start("nnunet:heart:[/x]", 2)
        progress.status("nnunet:heart:[/x]", "[hnsf'U] :skull:")
    shown = capsys.readouterr().err
    assert "nnunet:heart:[/x]" in shown
    assert "[hnsf'U] :skull:" in shown


def test_control_characters_are_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("x", ("text",), [("\x1b]0;title\x07\x1b[2J\u202e",)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b]0;title\\x07\\x1b[2J\\x202e" in shown
    assert printable("two\nlines\tand more") == "two\nlines\tand more"


def test_numbers_are_aligned_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("x", ("number", "text"), [(1.23456789, "a"), (10, "bb")])
    lines = capsys.readouterr().out.splitlines()
    assert any("1.23457 │ a " in line for line in lines)
    assert any("     10 │ bb" in line for line in lines)


CODE = """
import os, subprocess, sys
from ctenrich.cli.console import keep_libraries_off_console
keep_libraries_off_console()
os.write(1, b"a library\\n"); os.write(2, b"Unsupported JPEG data precision 12\\n")
subprocess.run([sys.executable, "-c", "import sys; print('a child'); print('a child', file=sys.stderr)"], check=True)
print("our result"); print("our note", file=sys.stderr)
"""


def test_what_libraries_print_does_not_reach_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("our result\n", "our note\n")
    monkeypatch.setenv("CTENRICH_LIBRARY_MESSAGES", "1")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert "a library" in done.stdout
    assert "precision 12" in done.stderr


def test_commands_print_and_fail_as_before() -> None:
    command = [sys.executable, "-m", "ctenrich.cli.main"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ctenrich ")
    done = subprocess.run([*command, "report", "none"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
