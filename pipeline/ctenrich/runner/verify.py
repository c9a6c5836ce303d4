"""Verify a run: compute every hash that it has recorded again, and compare."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ctenrich.errors import CtenrichError
from ctenrich.masks import masks_sha256
from ctenrich.progress import SILENT, Progress
from ctenrich.records import (
    EncodedObjects,
    FetchedSeries,
    Product,
    Proof,
    SegmentMasks,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.results.complete import tables_mark
from ctenrich.runner.manifest_files import manifest_paths
from ctenrich.runner.run import COHORT, Run
from ctenrich.select.cohort_file import read_cohort
from ctenrich.series_store import SERIES_RECORDS, SeriesStore
from ctenrich.stages.convert import SLICE_INDEX, slice_index
from ctenrich.workspace import load_array, sha256_of_file

__all__ = ["Mismatch", "Verification", "verify_run"]


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A file or record that is not what the run has recorded."""

    path: str
    """Below the run's folder; absolute for files that were read in place."""
    problem: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of :func:`verify_run`."""

    hashes: int
    """Number of recorded hashes that were compared."""
    mismatches: tuple[Mismatch, ...]
    notes: tuple[str, ...] = ()
    """What could not be compared, because it is not part of the run any more."""


def verify_run(run: Run, *, progress: Progress = SILENT) -> Verification:
    """Compute the hashes of slices, volumes, masks, scores, objects, records and tables again, and compare them.

    Every file that a manifest lists is read whole. Hashes over content (a volume's voxels, the masks of all segments,
    the order of the slices) are computed from that content, not from the files.

    Parameters
    ----------
    run : Run
        The run; no runner should be at work.
    progress : Progress
        Advanced by every series.

    Returns
    -------
    Verification
        All mismatches, in the order of the cohort.
    """
    check = _Check(run)
    check.cohort()
    progress.start("verify", len(run.cohort.series))
    for entry in run.cohort.series:
        check.series(entry.series_instance_uid)
        progress.advance("verify")
    check.tables()
    progress.finish("verify")
    notes = [f"the fetched objects of {check.released} series were deleted after use"] if check.released else []
    return Verification(hashes=check.count, mismatches=tuple(check.mismatches), notes=tuple(notes))


class _Check:
    """Compares and counts; each file of a series is hashed once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._store = SeriesStore(run.workspace)
        self._hashed: dict[Path, str | None] = {}
        self._reported: set[str] = set()
        """Files with a problem, and the folders above them."""
        self.count = 0
        self.released = 0
        self.mismatches: list[Mismatch] = []

    def cohort(self) -> None:
        """Compare the values of the cohort file with their hash; that it was checked before does not count."""
        self.count += 1
        path = self._run.root / COHORT
        try:
            read_cohort(path)
        except CtenrichError as error:
            self._report(path, error.message)

    # ------------------------------------------------------------ series

    def series(self, uid: str) -> None:
        self._hashed.clear()
        released = self._manifests(self._store.folder(uid))
        self.released += released
        for requested in self._run.config.products:
            self._manifests(self._store.folder(uid, requested.product))
        fetched = self._record(FetchedSeries, uid)
        if fetched is not None:
            for file in (*fetched.files, *fetched.companions):
                path = self._run.workspace.resolve(uid, file.path)
                if not (released and path.is_relative_to(self._store.source_dir(uid))):
                    self._file(path, file.sha256, "the fetched object")
        self._sorted_series(uid, fetched)
        volume = self._record(Volume, uid)
        if volume is not None:
            self._content(uid, volume.array_path, volume.sha256, _sha256_of_voxels, "voxels")
            self._slice_index(uid, self._run.workspace.resolve(uid, volume.array_path).parent / SLICE_INDEX)
        for requested in self._run.config.products:
            self._product(uid, requested.product)

    def _sorted_series(self, uid: str, fetched: FetchedSeries | None) -> None:
        series = self._record(SortedSeries, uid)
        if series is None or fetched is None:
            return
        files = {file.path: file.sha256 for file in fetched.files}
        digest = hashlib.sha256()
        for one in series.slices:
            digest.update(f"{one.sop_instance_uid} {files.get(one.path, '')}\n".encode())
        path = self._store.path(SortedSeries, uid)
        self._compare(path, digest.hexdigest(), series.source_sha256, "the order and files of its slices")

    def _slice_index(self, uid: str, path: Path) -> None:
        """Compare the list of slices beside the volume, which no manifest lists, with the sorted series."""
        series = self._record(SortedSeries, uid)
        if series is not None:
            self._file(path, hashlib.sha256(slice_index(series)).hexdigest(), "the list of slices")

    def _product(self, uid: str, product: Product) -> None:
        recorded: dict[str, str] = {}
        masks = self._record(SegmentMasks, uid, product)
        if masks is not None:
            recorded["masks"] = masks.sha256
            name = masks.label_map_path or self._run.workspace.relative(uid, self._store.masks_dir(uid, product))
            self._content(
                uid, name, masks.sha256, lambda _: masks_sha256(masks, self._run.workspace), "masks", whole=False
            )
        scores = self._record(SliceScores, uid, product)
        if scores is not None:
            recorded["scores"] = scores.sha256
        objects = self._record(EncodedObjects, uid, product)
        for item in objects.objects if objects is not None else ():
            recorded[str(item.kind)] = item.sha256
            self._file(self._run.workspace.resolve(uid, item.path), item.sha256, "the object")
        proof = self._record(Proof, uid, product)
        for name, sha256 in proof.hashes.items() if proof is not None else ():
            if name in recorded:
                text = f"the {name} that were proven"
                self._compare(self._store.path(Proof, uid, product), recorded[name], sha256, text)

    def _manifests(self, folder: Path) -> bool:
        """Compare the files of all manifests of a folder; return whether its fetched objects were deleted after use."""
        released = False
        for path, stage, content in manifest_paths(folder):
            try:
                manifest = json.loads(content)
                files: dict[str, Any] = dict(manifest["files"])
                released = released or bool(manifest.get("released"))
                for name, (_, _, sha256) in sorted(files.items()):
                    self._file(folder / name, str(sha256), f"what {stage} wrote")
            except (ValueError, KeyError, TypeError, AttributeError):
                self._report(path, "cannot be read as a manifest")
        return released

    # ------------------------------------------------------------ tables

    def tables(self) -> None:
        folder = self._run.workspace.tables
        mark = tables_mark(self._run.workspace)
        if mark is not None and not mark.complete:
            self._report(folder, "the tables were not written to the end")
        for name, sha256 in sorted(mark.files.items()) if mark is not None else ():
            self._file(folder / name, sha256, "the table")

    # ------------------------------------------------------------ comparing

    def _record(self, record: type[Any], uid: str, product: Product | None = None) -> Any:
        """Load a record; None if there is none or it cannot be read, which is reported."""
        where = None if record in SERIES_RECORDS else product
        try:
            return self._store.find(record, uid, where)
        except CtenrichError as error:
            self._report(self._store.path(record, uid, where), error.message)
            return None

    def _content(self, uid: str, name: str, expected: str, compute: Any, text: str, *, whole: bool = True) -> None:
        path = self._run.workspace.resolve(uid, name)
        if whole and not path.is_file():
            self._report(path, "is not there")
            return
        try:
            found = compute(path)
        except (OSError, ValueError, IndexError, CtenrichError) as error:
            self.count += 1
            self._report(path, f"its {text} cannot be read ({type(error).__name__})")
            return
        self._compare(path, found, expected, f"its {text}")

    def _file(self, path: Path, expected: str, text: str) -> None:
        if path not in self._hashed:
            try:
                self._hashed[path] = sha256_of_file(path)
            except OSError:
                self._hashed[path] = None
        found = self._hashed[path]
        if found is None:
            self.count += 1
            self._report(path, "is not there, or cannot be read")
        else:
            self._compare(path, found, expected, text)

    def _compare(self, path: Path, found: str, expected: str, text: str) -> None:
        self.count += 1
        if expected and found != expected:
            self._report(path, f"the SHA-256 of {text} is {found[:12]}..., recorded is {expected[:12]}...")

    def _report(self, path: Path, problem: str) -> None:
        """Keep the first problem of a file: one line for each; none for a folder of which a file is reported."""
        root = self._run.workspace.root
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        if name not in self._reported:
            self._reported.update((name, *(parent.as_posix() for parent in PurePosixPath(name).parents)))
            self.mismatches.append(Mismatch(path=name, problem=problem))


def _sha256_of_voxels(path: Path) -> str:
    """Hash of a volume's array, slice by slice, as :attr:`ctenrich.records.Volume.sha256` defines it."""
    digest = hashlib.sha256()
    for part in load_array(path):
        digest.update(part.tobytes())
    return digest.hexdigest()
