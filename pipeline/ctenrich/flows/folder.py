"""The flows of a folder: reloaded when a file changes; a file that becomes bad keeps its last good version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import CtenrichError, UsageError
from ctenrich.flows.reader import Machine, parse_flow
from ctenrich.flows.records import Flow
from ctenrich.flows.yaml_nodes import MAX_BYTES
from ctenrich.reasons import Reason

__all__ = ["FlowFolder", "LoadedFlow", "flow_files", "load_flows"]

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class LoadedFlow:
    """A flow file as it was last read."""

    path: Path
    flow: Flow | None
    """The last good version; None if there was none."""
    content: bytes = b""
    """Content of that version."""
    error: CtenrichError | None = None
    """Why the file as it is now cannot be used."""


def flow_files(folder: Path) -> list[Path]:
    """Return the flow files of a folder and its subfolders, sorted; links and hidden files are left out.

    Raises
    ------
    UsageError
        NOT_FOUND.
    """
    if not folder.is_dir():
        raise UsageError(Reason.NOT_FOUND, f"there is no folder {folder}", "name the folder of the flow files")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def load_flows(paths: Sequence[Path], machine: Machine | None = None) -> list[LoadedFlow]:
    """Read flow files, each by itself: a bad one does not affect the others.

    Parameters
    ----------
    paths : sequence of Path
        The files. Of two flows with one name the later one is refused.
    machine : Machine, optional
        What images and devices flows may need.

    Returns
    -------
    list of LoadedFlow
        One per file.
    """
    return _unique([_load(path, machine) for path in paths])


def _load(path: Path, machine: Machine | None, check: Callable[[Flow], None] = lambda _: None) -> LoadedFlow:
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_BYTES + 1)
        flow = parse_flow(content, path, machine)
        check(flow)
        return LoadedFlow(path=path, flow=flow, content=content)
    except CtenrichError as error:
        return LoadedFlow(path=path, flow=None, error=error)
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror}"
        return LoadedFlow(path=path, flow=None, error=UsageError(Reason.BAD_FLOW, message))


def _unique(loaded: list[LoadedFlow]) -> list[LoadedFlow]:
    """Refuse a flow whose name another file has: their results could not be told apart."""
    owners: dict[str, Path] = {}
    found = []
    for one in loaded:
        if one.flow is not None and one.flow.name in owners:
            other = owners[one.flow.name].name
            error = UsageError(Reason.BAD_FLOW, f"{one.path.name}: {other} also has the name {one.flow.name}")
            found.append(LoadedFlow(path=one.path, flow=None, error=error))
            continue
        if one.flow is not None:
            owners[one.flow.name] = one.path
        found.append(one)
    return found


class FlowFolder:
    """Flows of a folder, by priority.

    Parameters
    ----------
    folder : Path
        Its ``*.yaml`` and ``*.yml`` files, those of subfolders included.
    machine : Machine, optional
        What images and devices flows may need.
    changed : callable
        Called with each file whose version or error has changed.
    check : callable
        Called with each flow that was read; raises a `CtenrichError` to refuse it.

    Raises
    ------
    UsageError
        NOT_FOUND.
    """

    def __init__(
        self,
        folder: Path,
        machine: Machine | None = None,
        *,
        changed: Callable[[LoadedFlow], None] = lambda _: None,
        check: Callable[[Flow], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._changed = changed
        self._check = check
        self._read: dict[Path, LoadedFlow] = {}
        self._loaded: dict[Path, LoadedFlow] = {}
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self.update()

    def update(self) -> bool:
        """Read the files that are new or have changed; returns whether the flows are others than before.

        A file that has become bad keeps its last good version, also while it cannot be read. A file that is gone ends
        its flow.
        """
        before = self.flows
        try:
            paths = flow_files(self._folder)
        except (OSError, UsageError):
            return False  # the folder is being replaced; the flows stay as they are
        stamps = {path: stamp for path in paths if (stamp := _stamp(path)) is not None}
        if stamps == self._seen:
            return False
        read = {path: self._read_again(path, stamps.get(path)) for path in paths}
        loaded = {one.path: one for one in _unique(list(read.values()))}
        for path, one in loaded.items():
            last = self._loaded.get(path)
            if last is None or (_version(last), str(last.error)) != (_version(one), str(one.error)):
                self._changed(one)
        self._read, self._loaded = read, loaded
        self._seen = stamps
        return before != self.flows

    def _read_again(self, path: Path, stamp: tuple[int, int, int] | None) -> LoadedFlow:
        last = self._read.get(path)
        if last is not None and self._seen.get(path) == stamp:
            return last
        found = _load(path, self._machine, self._check)
        if found.flow is None and last is not None:
            return LoadedFlow(path=path, flow=last.flow, content=last.content, error=found.error)
        return found

    @property
    def loaded(self) -> tuple[LoadedFlow, ...]:
        """All files, good and bad."""
        return tuple(self._loaded[path] for path in sorted(self._loaded))

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Active flows, those of higher priority first, then by name."""
        found = [one.flow for one in self._loaded.values() if one.flow is not None]
        return tuple(sorted(found, key=lambda flow: (-flow.priority, flow.name)))

    def content(self, name: str) -> bytes:
        """Content of the file from which an active flow was read."""
        return next(one.content for one in self._loaded.values() if one.flow is not None and one.flow.name == name)


def _version(loaded: LoadedFlow) -> str:
    return loaded.flow.sha256 if loaded.flow is not None else ""


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Time of change, size and inode of a file, by which a change is noticed; None if it has just gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
