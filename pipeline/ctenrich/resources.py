"""Data files that are installed with the package (queries, mappings, models), and the plug-ins of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["folder", "plugins", "registered"]

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Folder of the package's data: ``queries`` or ``mappings`` (top level of a checkout, ``_data`` in a wheel)."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parents[1] / name


def plugins(group: str) -> dict[str, object]:
    """Objects that installed packages register under an entry point group, loaded, by entry point name.

    Parameters
    ----------
    group : str
        Entry point group, e.g. ``ctenrich.catalogs``.

    Returns
    -------
    dict
        Entry point name -> loaded object, sorted by name. Every call reads the installed packages anew.

    Raises
    ------
    UsageError
        BAD_PLUGIN: two packages register one name, or an entry point cannot be loaded; the message names the package.
    """
    owners: dict[str, str] = {}
    loaded: dict[str, object] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        owner = entry.dist.name if entry.dist is not None else entry.value
        if owners.setdefault(entry.name, owner) != owner:
            message = f"the packages {owners[entry.name]} and {owner} both register {entry.name!r} in {group}"
            raise UsageError(Reason.BAD_PLUGIN, message, "uninstall one of them")
        try:
            loaded[entry.name] = entry.load()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            message = f"{entry.name!r} of the package {owner} ({group}) cannot be loaded: {problem}"
            raise UsageError(Reason.BAD_PLUGIN, message, f"update or uninstall {owner}") from error
    return loaded


def registered(name: str, built_in: Mapping[str, str], group: str) -> object | None:
    """The object that is registered under a name, imported when it is asked for.

    Parameters
    ----------
    name : str
        Name of the kind, e.g. ``folder`` of the catalogs.
    built_in : mapping
        Name -> ``module:object`` of the kinds that come with ctenrich.
    group : str
        Entry point group in which other packages register theirs; a name that is built in cannot be replaced.

    Returns
    -------
    object or None
        None where neither ctenrich nor an installed package registers the name.

    Raises
    ------
    UsageError
        BAD_PLUGIN, see :func:`plugins`.
    """
    if name in built_in:
        module, _, attribute = built_in[name].partition(":")
        found: object = getattr(import_module(module), attribute)
        return found
    return plugins(group).get(name)
