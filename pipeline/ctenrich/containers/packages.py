"""The manifests of a MONAI Application Package: what its container needs, and where it reads and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ctenrich.containers.engines import Engine
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["PackageManifest", "may_be_package", "read_package"]

_FOLDERS = ("/etc/holoscan", "/etc/monai")
"""Folders of the manifests: of version 1 of the specification, and of the earlier ones."""
_WORK = "/var/holoscan"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


@dataclass(frozen=True, kw_only=True)
class PackageManifest:
    """What ``app.json`` and ``pkg.json`` state."""

    input: str
    """Absolute path in the container."""
    output: str
    command: tuple[str, ...] = ()
    """Command of the application, for an image without an entry point."""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 0.0
    """Seconds; 0: none."""
    cpus: float = 0.0
    gpus: int = 0
    memory: int = 0
    """Bytes that it needs; 0: not stated."""
    shared_memory: int = 0


def may_be_package(engine: Engine, image: str) -> bool:
    """Return whether an image may be a MONAI Application Package: it sets the variables of one, or runs its program.

    Reading a file of an image takes a second; this tells most images apart without it.

    Parameters
    ----------
    engine : Engine
        The engine that has the image.
    image : str
        Its name.

    Returns
    -------
    bool
    """
    variables = engine.environment(image)
    found = variables is None or any(name.startswith(("HOLOSCAN_", "MONAI_")) for name in variables)
    return found or any(_WORK in word for word in engine.entrypoint(image))


def read_package(engine: Engine, image: str) -> PackageManifest | None:
    """Read the manifests of an image; None if it has none: it is no MONAI Application Package.

    Parameters
    ----------
    engine : Engine
        The engine that has the image.
    image : str
        Its name or ID.

    Returns
    -------
    PackageManifest or None

    Raises
    ------
    UsageError
        BAD_FLOW for a manifest that cannot be used.
    """
    for folder in _FOLDERS:
        content = engine.read_file(image, f"{folder}/app.json")
        if content:
            package = engine.read_file(image, f"{folder}/pkg.json")
            try:
                return _parse(_object(content), _object(package) if package else {})
            except (ValueError, TypeError, AttributeError, LookupError) as error:
                message = f"the manifests of {image} cannot be used ({type(error).__name__})"
                raise UsageError(Reason.BAD_FLOW, message, "app.json and pkg.json are JSON objects") from None
    return None


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise TypeError
    return found


def _parse(app: Mapping[str, Any], package: Mapping[str, Any]) -> PackageManifest:
    work = str(app.get("workingDirectory") or _WORK)
    resources = package.get("resources") or {}
    command = app.get("command") or ()
    return PackageManifest(
        input=_path(work, app.get("input"), "input"),
        output=_path(work, app.get("output"), "output"),
        command=tuple(json.loads(command) if isinstance(command, str) and command.startswith("[") else _words(command)),
        environment={str(name): str(value) for name, value in (app.get("environment") or {}).items()},
        timeout=float(app.get("timeout") or 0),
        cpus=float(resources.get("cpu") or 0),
        gpus=int(resources.get("gpu") or 0),
        memory=_bytes(resources.get("memory")),
        shared_memory=_bytes(resources.get("sharedMemory")),
    )


def _words(command: Any) -> list[str]:
    return command.split() if isinstance(command, str) else [str(word) for word in command]


def _path(work: str, stated: Any, default: str) -> str:
    """Path of input or output, which may be relative to the working directory."""
    path = PurePosixPath(work, str((stated or {}).get("path") or default))
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/") or ":" in str(path):
        raise ValueError(path)
    return str(path)


def _bytes(text: Any) -> int:
    found = _SIZE.fullmatch(str(text or 0).strip())
    if found is None:
        raise ValueError(text)
    return int(float(found[1]) * _FACTORS[found[2].lower()])
