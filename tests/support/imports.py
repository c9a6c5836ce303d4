"""Read the imports between the modules of a package from their syntax trees; nothing is imported."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OwnImport", "import_graph", "module_files", "own_imports", "strongly_connected", "subpackage_graph"]

Graph = dict[str, set[str]]


@dataclass(frozen=True, kw_only=True)
class OwnImport:
    """One import statement of a module of the package for another one."""

    importer: str
    imported: tuple[str, ...]
    line: int
    late: bool
    """Inside a function."""
    explained: bool
    """A comment at its end, or above the block of imports that it belongs to."""


def module_files(package: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below a package's folder."""
    out = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def own_imports(files: Mapping[str, Path]) -> list[OwnImport]:
    """Every import of one module of `files` by another, also those inside functions; without TYPE_CHECKING blocks."""
    root = min(files, key=len)
    found = []
    for name, path in files.items():
        text = path.read_text("utf-8")
        lines = text.splitlines()
        for node, late in _statements(ast.parse(text), late=False):
            imported = tuple(sorted(set(_targets(node, name, path.name == "__init__.py", files))))
            if not any(target.split(".")[0] == root for target in imported):
                continue
            found.append(
                OwnImport(
                    importer=name, imported=imported, line=node.lineno, late=late, explained=_explained(node, lines)
                )
            )
    return found


def _statements(node: ast.AST, *, late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, late
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _statements(ast.Module([other], []), late=late)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _statements(child, late=late or inside)


def _targets(node: ast.Import | ast.ImportFrom, importer: str, is_package: bool, known: Iterable[str]) -> Iterator[str]:
    names = set(known)
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in names)
        return
    base = node.module or ""
    if node.level:
        above = importer.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
        base = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        full = f"{base}.{alias.name}"
        if full in names:
            yield full
        elif base in names:
            yield base


def _explained(node: ast.Import | ast.ImportFrom, lines: list[str]) -> bool:
    last = lines[(node.end_lineno or node.lineno) - 1]
    if any("#" in line for line in (lines[node.lineno - 1], last)):
        return True
    number = node.lineno - 2
    while number >= 0 and lines[number].lstrip().startswith(("import ", "from ")):
        number -= 1
    return number >= 0 and lines[number].lstrip().startswith("#")


def import_graph(imports: Iterable[OwnImport]) -> Graph:
    """Module -> the modules that it imports, at its top or inside functions."""
    graph: Graph = defaultdict(set)
    for one in imports:
        graph[one.importer].update(target for target in one.imported if target != one.importer)
    return dict(graph)


def subpackage_graph(graph: Mapping[str, Iterable[str]]) -> Graph:
    """The same between the package's direct children: subpackages and single modules.

    Imports of modules that import nothing of the package, such as constants, are left out: they cannot be part of a
    circle.
    """
    out: Graph = defaultdict(set)
    for module, targets in graph.items():
        here = _child(module)
        out[here].update({_child(target) for target in targets if not _is_leaf(target, graph)} - {here})
    return dict(out)


def _is_leaf(module: str, graph: Mapping[str, Iterable[str]]) -> bool:
    parts = module.split(".")
    return not any(graph.get(".".join(parts[: n + 1])) for n in range(1, len(parts)))


def _child(module: str) -> str:
    return ".".join(module.split(".")[:2])


def strongly_connected(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of two or more nodes that reach each other (Tarjan 1972), each sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in list(graph):
        if node not in order:
            visit(node)
    return groups
