"""Files of the manifests of a series or product: one for each stage, or one for all in a divided run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctenrich.workspace import write_bytes

__all__ = ["ManifestFiles", "manifest_paths"]

_FOLDER = "manifests"
_JOINED = "manifests.json"
_FAILED = ".failed"


class ManifestFiles:
    """Manifests and cached failures in a folder, by the name of the stage.

    They are ``manifests/STAGE.json`` and ``manifests/STAGE.failed.json``, or the entries ``STAGE`` and
    ``STAGE.failed`` of ``manifests.json``. That file is replaced as a whole. The stages of a folder run one after the
    other; should a runner whose lease has expired still write, an entry may be lost, and its stage runs again.

    Parameters
    ----------
    folder : Path
        Of the series or product.
    joined : bool, optional
        Whether there is one file for all stages; None: whether such a file is there.
    """

    def __init__(self, folder: Path, *, joined: bool | None = None) -> None:
        self._folder = folder
        self._joined = (folder / _JOINED).is_file() if joined is None else joined

    def read(self, stage: str, *, failed: bool = False) -> Any:
        """Return a manifest, or a cached failure.

        Raises
        ------
        FileNotFoundError
            There is none.
        ValueError
            It is damaged.
        """
        name = _name(stage, failed=failed)
        if not self._joined:
            return json.loads((self._folder / _FOLDER / f"{name}.json").read_bytes())
        found = json.loads((self._folder / _JOINED).read_bytes())
        if not isinstance(found, dict):
            raise ValueError(_JOINED)
        if name not in found:
            raise FileNotFoundError(name)
        return found[name]

    def write(self, stage: str, content: Mapping[str, object], *, failed: bool = False, durable: bool = False) -> None:
        """Write a manifest or a failure atomically.

        Parameters
        ----------
        stage : str
            Name of the stage.
        content : mapping
            What is written.
        failed : bool
            Whether it is a cached failure.
        durable : bool
            See :func:`ctenrich.workspace.write_bytes`.
        """
        name = _name(stage, failed=failed)
        if self._joined:
            self._replace(self._entries() | {name: content}, durable=durable)
            return
        text = json.dumps(content) if failed else json.dumps(content, indent=1) + "\n"
        write_bytes(self._folder / _FOLDER / f"{name}.json", text.encode(), durable=durable)

    def remove(self, stage: str) -> None:
        """Delete the manifest of a stage and its cached failure."""
        self._remove({_name(stage, failed=failed) for failed in (False, True)})

    def remove_manifest(self, stage: str) -> None:
        """Delete the manifest of a stage."""
        self._remove({stage})

    def remove_failures(self) -> None:
        """Delete all cached failures."""
        if self._joined:
            self._remove({name for name in self._entries() if name.endswith(_FAILED)})
        else:
            for path in (self._folder / _FOLDER).glob(f"*{_FAILED}.json"):
                path.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Create the folder of the manifests, so that it is there before the folders above are flushed."""
        (self._folder if self._joined else self._folder / _FOLDER).mkdir(exist_ok=True)

    def _remove(self, names: set[str]) -> None:
        if not self._joined:
            for name in names:
                (self._folder / _FOLDER / f"{name}.json").unlink(missing_ok=True)
            return
        found = self._entries()
        if names & found.keys():
            self._replace({name: content for name, content in found.items() if name not in names})

    def _entries(self) -> dict[str, Any]:
        """All entries of the one file; none if it is damaged: the stages run again."""
        try:
            found = json.loads((self._folder / _JOINED).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _replace(self, entries: Mapping[str, object], *, durable: bool = False) -> None:
        text = json.dumps(entries, indent=1) + "\n"
        write_bytes(self._folder / _JOINED, text.encode(), durable=durable)


def manifest_paths(folder: Path) -> Iterator[tuple[Path, str, bytes]]:
    """List the manifests of a folder, sorted, without cached failures.

    Parameters
    ----------
    folder : Path
        Of the series or product.

    Yields
    ------
    path : Path
        File of the manifest.
    stage : str
        Name of the stage; empty for a file with manifests of which none can be read.
    content : bytes
        JSON of the manifest, which may be damaged.
    """
    for path in sorted((folder / _FOLDER).glob("*.json")):
        if not path.stem.endswith(_FAILED):
            try:
                yield path, path.stem, path.read_bytes()
            except FileNotFoundError:
                continue
    path = folder / _JOINED
    if path.is_file():
        try:
            found = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError):
            yield path, "", b""
            return
        for name in sorted(found):
            if not name.endswith(_FAILED):
                yield path, name, json.dumps(found[name]).encode()


def _name(stage: str, *, failed: bool) -> str:
    return f"{stage}{_FAILED}" if failed else stage
