"""Completion of names in the shell: queries, models, segmenters, runs and products."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "complete_bodypart",
    "complete_model",
    "complete_query",
    "complete_reason",
    "complete_run",
    "complete_segmenter",
]


def complete_run(incomplete: str) -> list[str]:
    """Folders that begin with what was typed: runs, or all of them where none is a run."""
    return _folders(incomplete, "run.json")


def complete_query(incomplete: str) -> list[str]:
    """Names of the queries that come with the package, then SQL files."""
    from ctenrich.resources import folder

    names = sorted(path.stem for path in folder("queries").glob("*.sql"))
    return [name for name in names if name.startswith(incomplete)] + _files(incomplete, ".sql")


def complete_reason(incomplete: str) -> list[str]:
    """Reason codes."""
    from ctenrich.reasons import Reason

    return [reason.value for reason in Reason if reason.value.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Names of the known models and of those that are installed."""
    return [name for name in _models("") if name.startswith(incomplete)]


def complete_bodypart(incomplete: str) -> list[str]:
    """Names of the body part regression models, ``none``, and folders."""
    names = ["none", *_models("bodypart")]
    return [name for name in names if name.startswith(incomplete)] or _folders(incomplete, "")


def complete_segmenter(incomplete: str) -> list[str]:
    """Kinds of segmenters; after ``nnunet:`` the models, after ``totalsegmentator:`` the tasks."""
    alias, equals, spec = incomplete.partition("=") if "=" in incomplete.partition(":")[0] else ("", "", incomplete)
    kind, colon, rest = spec.partition(":")
    if not colon:
        kinds = ("expert", "nnunet:", "totalsegmentator:", "moose:", "lungmask:", "monai:", "torchscript:", "recipe:")
        found = [name for name in kinds if name.startswith(kind)]
    elif kind == "nnunet":
        found = [f"nnunet:{name}" for name in _models("nnunet") if name.startswith(rest)]
    elif kind == "totalsegmentator":
        from ctenrich.recipes.totalsegmentator import DEFAULT_VERSION, task_book

        found = [f"totalsegmentator:{name}" for name in task_book(DEFAULT_VERSION).recipes if name.startswith(rest)]
    elif kind == "lungmask":
        from ctenrich.networks.lungmask import TASKS

        found = [f"lungmask:{name}" for name in TASKS if name.startswith(rest)]
    elif kind == "moose":
        from ctenrich.recipes.moose import moose_book

        found = [f"moose:{name}" for name in moose_book().recipes if name.startswith(rest)]
    else:
        found = []
    return [f"{alias}{equals}{name}" for name in found]


def _models(kind: str) -> list[str]:
    """Names of the models of a kind (all kinds: empty): those of the registry, then those that were imported."""
    from ctenrich.inference.registry import models_home, registry

    known = {name: str(entry.kind.value) for name, entry in registry().items()}
    imported = sorted(path.name for path in (models_home() / "imported").glob("*") if path.is_dir())
    names = [name for name, of in known.items() if of.startswith(kind)]
    return names + [name for name in imported if name not in known]


def _folders(incomplete: str, mark: str) -> list[str]:
    """Folders whose path begins with a text; those that hold the file `mark` only, if there are any."""
    found = [path for path in _below(incomplete) if path.is_dir()]
    marked = [path for path in found if mark and (path / mark).is_file()]
    return [str(path) for path in marked or found]


def _files(incomplete: str, suffix: str) -> list[str]:
    return [str(path) for path in _below(incomplete) if path.suffix == suffix]


def _below(incomplete: str) -> Iterator[Path]:
    """Paths beside or below what was typed that begin with it."""
    typed = Path(incomplete)
    parent, start = (typed, "") if incomplete.endswith("/") or not incomplete else (typed.parent, typed.name)
    if parent.is_dir():
        yield from sorted(path for path in parent.iterdir() if path.name.startswith(start))
