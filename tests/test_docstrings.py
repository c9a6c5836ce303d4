"""Exported functions document their parameters and the errors that they raise (numpydoc sections)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctenrich
from ctenrich import errors

PACKAGE = Path(ctenrich.__file__).parent
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def exported_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE)
        if module.parts[0] == "cli":  # typer takes the help of a parameter from its annotation
            continue
        tree = ast.parse(path.read_text("utf-8"))
        assigned = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
        names = {name for node in assigned for name in ast.literal_eval(node.value)}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                yield f"{module}:{node.name}", node


def parameters(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    extra = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra)]


def section(function: ast.FunctionDef, title: str) -> str:
    """Return the text of a section of the docstring, empty if there is none."""
    found = re.search(
        rf"^{title}\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", ast.get_docstring(function) or "", re.MULTILINE | re.DOTALL
    )
    return found[1] if found else ""


def raised_errors(function: ast.FunctionDef) -> set[str]:
    calls = [n.exc for n in ast.walk(function) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
    return {ast.unparse(call.func) for call in calls} & ERRORS


FUNCTIONS = dict(exported_functions())


def test_the_package_exports_functions():
    assert {"steps/running.py:start", "proof/__init__.py:prove", "tools.py:run_tool"} <= FUNCTIONS.keys()
    assert raised_errors(FUNCTIONS["tools.py:run_tool"]) == {"ToolError"}


@pytest.mark.parametrize("name", [n for n, f in FUNCTIONS.items() if len(parameters(f)) > 1])
def test_every_parameter_is_described(name: str):
    text = section(FUNCTIONS[name], "Parameters")
    described = {
        part.strip(" *") for line in re.findall(r"^(\S.*?) : ", text, re.MULTILINE) for part in line.split(",")
    }
    described |= {line.lstrip("*") for line in re.findall(r"^(\S+)$", text, re.MULTILINE)}
    assert [p for p in parameters(FUNCTIONS[name]) if p not in described] == []


@pytest.mark.parametrize("name", [n for n, f in FUNCTIONS.items() if raised_errors(f)])
def test_every_error_is_described(name: str):
    described = set(re.findall(r"^\w+$", section(FUNCTIONS[name], "Raises"), re.MULTILINE))
    assert raised_errors(FUNCTIONS[name]) - described == set()
