"""Pseudonymise a folder of DICOM files: patients are checked, files are written, results that are there are kept."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ctenrich import __version__
from ctenrich.errors import InputError, UsageError, is_disk_full
from ctenrich.progress import SILENT, Progress
from ctenrich.pseudonymise.clean import Subject
from ctenrich.pseudonymise.journal import Entry, Journal, check_settings
from ctenrich.pseudonymise.object_file import CleanedFile, Rules, pseudonymise_file
from ctenrich.pseudonymise.patients import FileIdentity, Refusal, find_refusals, read_identity
from ctenrich.pseudonymise.profile import EDITION
from ctenrich.pseudonymise.report import Summary, write_report
from ctenrich.reasons import Reason
from ctenrich.workspace import files_below, remove_temporaries

__all__ = ["FolderResult", "pseudonymise_folder"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """What became of a folder. Paths and words may identify patients: they are for the owner of the key only."""

    summary: Summary
    refused: Mapping[Path, Refusal] = field(repr=False)
    words: Mapping[str, int] = field(repr=False)
    """Words that were replaced in the files of this call -> how often."""


class _Job(NamedTuple):
    identity: FileIdentity
    out: Path
    subject: Subject


def pseudonymise_folder(
    folder: Path,
    out: Path,
    rules: Rules,
    *,
    pseudonyms: Mapping[str, str] | None = None,
    processes: int = 1,
    progress: Progress = SILENT,
) -> FolderResult:
    """Pseudonymise all DICOM files below a folder.

    Parameters
    ----------
    folder : Path
        Files that are no DICOM objects are passed over, links are not followed.
    out : Path
        Folder of results: new, or of an earlier call with the same key and options, which is continued.
    rules : Rules
        Key and options.
    pseudonyms : mapping, optional
        Patient ID -> chosen pseudonym; the other patients get one from the key.
    processes : int
        Number of processes that read and write files; the results are the same.
    progress : Progress
        Counts files.

    Returns
    -------
    FolderResult
        Files that were refused are in it; the others go on.

    Raises
    ------
    UsageError
        BAD_PARAMETER if one of the folders is inside the other or `out` was made otherwise; EMPTY_INPUT.
    InputError
        WORKER_DIED if a process was killed.
    """
    _check_places(folder, out)
    pseudonyms = pseudonyms or {}
    settings = _settings(rules, pseudonyms)
    check_settings(out, settings)
    remove_temporaries(out)
    paths = [path for path, _ in files_below(folder)]
    progress.start("read", len(paths))
    identities: list[FileIdentity] = []
    refused: dict[Path, Refusal] = {}
    for path, found in zip(paths, _run(read_identity, paths, processes), strict=True):
        if isinstance(found, FileIdentity):
            identities.append(found)
        elif found is not None:
            refused[path] = found
        progress.advance("read")
    if not identities and not refused:
        raise UsageError(Reason.EMPTY_INPUT, "the folder holds no DICOM file", "name the folder of the files")
    other = len(paths) - len(identities) - len(refused)
    refused |= find_refusals(identities, pseudonyms)
    first = {one.sop: one for one in reversed(identities) if one.path not in refused}
    work = _Work(folder=folder, out=out, rules=rules, journal=Journal(out))
    with work.journal:
        by_path = {one.path: one for one in identities}
        for path, refusal in refused.items():
            work.refuse(path, by_path.get(path), refusal)
        jobs = [
            _Job(one, out, rules.subject(one.patient_id, pseudonyms.get(one.patient_id, ""))) for one in first.values()
        ]
        copies = sum(one.path not in refused for one in identities) - len(jobs)
        jobs.sort(key=lambda job: job.identity.path)
        waiting = [job for job in jobs if not work.is_done(job)]
        progress.start("write", len(waiting))
        for job, result in zip(waiting, _run(_Writer(rules), waiting, processes), strict=True):
            if isinstance(result, Refusal):
                refused[job.identity.path] = result
                work.refuse(job.identity.path, job.identity, result, job.subject.pseudonym)
            else:
                work.add(job, result)
            progress.advance("write")
    summary = write_report(
        out,
        settings,
        list(work.journal.entries.values()),
        skipped=len(jobs) - len(waiting),
        copies=copies,
        other=other,
    )
    return FolderResult(summary=summary, refused=refused, words=dict(work.words))


def _check_places(folder: Path, out: Path) -> None:
    one, two = folder.resolve(), out.resolve()
    if one == two or one.is_relative_to(two) or two.is_relative_to(one):
        raise UsageError(Reason.BAD_PARAMETER, "the folder of results and the folder of files are one inside the other")


def _settings(rules: Rules, pseudonyms: Mapping[str, str]) -> dict[str, str]:
    private = [f"{one.creator} {one.group:04x} {one.element:02x}" for one in rules.private]
    return {
        "version": __version__,
        "profile": f"PS3.15 {EDITION}, Table E.1-1",
        "options": rules.options.describe(),
        "key": rules.key.fingerprint("key"),
        "private attributes": rules.key.fingerprint("private", *sorted(private)),
        "words": rules.key.fingerprint("words", *sorted(rules.words)),
        "pseudonyms": rules.key.fingerprint("pseudonyms", *(t for pair in sorted(pseudonyms.items()) for t in pair)),
    }


@dataclass(kw_only=True)
class _Work:
    """State of a call."""

    folder: Path
    out: Path
    rules: Rules
    journal: Journal
    words: Counter[str] = field(default_factory=Counter)

    def _source(self, path: Path) -> str:
        return self.rules.key.fingerprint("source", os.fsdecode(os.fsencode(path.relative_to(self.folder))))

    def _state(self, identity: FileIdentity | None) -> str:
        return (
            "" if identity is None else self.rules.key.fingerprint("state", str(identity.size), str(identity.changed))
        )

    def is_done(self, job: _Job) -> bool:
        """Whether the result of an earlier call is there, and the source is as it was."""
        entry = self.journal.entries.get(self._source(job.identity.path))
        if entry is None or entry.reason or entry.state != self._state(job.identity):
            return False
        try:
            return (self.out / entry.path).stat().st_size == entry.size
        except FileNotFoundError:
            return False

    def add(self, job: _Job, result: CleanedFile) -> None:
        """Note a file that was written."""
        self.words.update(result.words)
        counts = sorted((name, outcome, number) for (name, outcome), number in result.counts.items())
        entry = Entry(
            source=self._source(job.identity.path),
            state=self._state(job.identity),
            patient=job.subject.pseudonym,
            path=result.path,
            size=result.size,
            notes=result.notes,
            counts=tuple(counts),
        )
        self._replace(entry)

    def refuse(self, path: Path, identity: FileIdentity | None, refusal: Refusal, patient: str = "") -> None:
        """Note a file that was refused; what an earlier call wrote for it is removed."""
        entry = Entry(
            source=self._source(path),
            state=self._state(identity),
            patient=patient,
            reason=refusal.reason.value,
            detail=refusal.detail,
        )
        self._replace(entry)

    def _replace(self, entry: Entry) -> None:
        before = self.journal.entries.get(entry.source)
        if before is not None and before.path and before.path != entry.path:
            (self.out / before.path).unlink(missing_ok=True)
        self.journal.add(entry)


class _Writer:
    """Writes the result of one file; can be sent to another process."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def __call__(self, job: _Job) -> CleanedFile | Refusal:
        try:
            return pseudonymise_file(job.identity.path, job.out, job.subject, self.rules)
        except InputError as error:
            if is_disk_full(error):
                raise
            return Refusal(reason=error.reason, detail=error.message, hint=error.hint)


def _run(function: Callable[[T], R], items: Sequence[T], processes: int) -> Iterator[R]:
    """Results in the order of the items, from this process or from several others."""
    if processes <= 1 or len(items) < 2 * processes:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    parts = [items[at : at + _PART] for at in range(0, len(items), _PART)]
    remaining = iter(parts)
    with ProcessPoolExecutor(min(processes, len(parts)), context, _start, (function,)) as pool:
        running = [pool.submit(_do, part) for part in islice(remaining, 2 * processes)]
        try:
            while running:
                yield from running.pop(0).result()
                running += [pool.submit(_do, part) for part in islice(remaining, 1)]
        except BrokenProcessPool:
            message = "a process that pseudonymised files died (memory, or a crash in a library)"
            raise InputError(
                Reason.WORKER_DIED, message, "run the same command again: what was written is kept"
            ) from None
        finally:
            for future in running:
                future.cancel()


_PART = 16
_function: list[Callable[..., Any]] = []


def _start(function: Callable[..., Any]) -> None:
    _function[:] = [function]


def _do(items: Iterable[object]) -> list[Any]:
    return [_function[0](item) for item in items]
