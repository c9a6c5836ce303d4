"""Check DICOM objects: those of a run against its records and proofs, any other SEG or SR by the validators alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctenrich import __version__
from ctenrich.dicom.objects import claims_to_be_dicom, header, quiet
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES, is_structured_report
from ctenrich.errors import CtenrichError, InputError
from ctenrich.ledger.reader import LedgerReader
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, EncodedObjects, Issue, Proof, ProofState, Severity
from ctenrich.runner.readiness import context_of
from ctenrich.runner.run import Run
from ctenrich.settings import Settings
from ctenrich.stages.stage import StageContext
from ctenrich.stages.table import prove_objects
from ctenrich.validate import validate_objects
from ctenrich.workspace import files_below, sha256_of_file

__all__ = ["ObjectReport", "check_files", "check_run", "instances_below"]

_PROVEN = {ProofState.PROVEN: True, ProofState.FAILED: False, ProofState.NOT_PROVEN: None}


@dataclass(frozen=True)
class ObjectReport:
    """Result of the checks of one object."""

    file: str
    """Path below the run's folder, or below what was given."""
    sop_instance_uid: str
    issues: tuple[Issue, ...]
    proven: bool | None
    """None if there is nothing to compare the object with: it was made by others, or its kind has no proof."""

    def count(self, severity: Severity) -> int:
        """Return the number of issues of a severity."""
        return sum(issue.severity is severity for issue in self.issues)

    @property
    def valid(self) -> bool:
        """Whether there is no error and no failed proof."""
        return self.count(Severity.ERROR) == 0 and self.proven is not False


def check_run(
    run: Run, *, again: bool = False, settings: Settings | None = None, progress: Progress = SILENT
) -> Iterator[ObjectReport]:
    """Check all objects of a run.

    Parameters
    ----------
    run : Run
        Its stages up to ``validate`` have run.
    again : bool
        Prove and validate everything again; otherwise the results of the stage are read, and the bytes are compared
        with the hashes of the objects that were written.
    settings : Settings, optional
        Settings of the validators, if they are not those of the run (with `again`).
    progress : Progress
        Receives one step per series.

    Yields
    ------
    ObjectReport
        One for every object.

    Raises
    ------
    InputError
        NOT_PREPARED if the run holds no object.
    """
    settings, found = settings or run.config.settings, False
    kept: dict[tuple[str, str], list[Issue]] = {}
    with LedgerReader(run.ledger_path) as ledger:
        for row in ledger.issues():
            if row.stage == "validate":
                kept.setdefault((row.series_instance_uid, row.product), []).append(row.issue)
    progress.start("objects", len(run.cohort.series))
    for entry in run.cohort.series:
        for plan in run.config.products:
            context = context_of(run, entry, plan, settings)
            record = context.store.find(EncodedObjects, context.uid, plan.product)
            if record is None:
                continue
            found, objects = True, record.objects
            before = kept.get((context.uid, str(plan.product)), [])
            issues, proof = _anew(context, objects) if again else (before, _kept_proof(context))
            yield from _reports_of(context, objects, issues, proof)
        progress.advance("objects")
    progress.finish("objects")
    if not found:
        raise InputError(Reason.NOT_PREPARED, "the run holds no object yet", "run the stages before it first")


def check_files(
    paths: Sequence[Path], *, settings: Settings, sources: Collection[str] | None = None
) -> list[ObjectReport]:
    """Check SEG and SR files from any source.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched; objects of another kind are ignored, damaged files are errors.
    settings : Settings
        Settings of the validators.
    sources : collection of str, optional
        SOP Instance UIDs that exist besides the files themselves; references to any other are errors.

    Raises
    ------
    InputError
        NOT_FOUND if there is no SEG or SR.
    """
    files = [(top, path) for top in paths for path in _files(top) if _is_checked(path)]
    if not files:
        raise InputError(Reason.NOT_FOUND, "no SEG or SR was found")
    uids = {path: _uid_or_nothing(path) for _, path in files}
    known = None if sources is None else frozenset((*sources, *uids.values())) - {""}
    reports = []
    for top, path in files:
        issues = validate_objects([path], settings=settings, sources=known)
        name = path.relative_to(top).as_posix() if top.is_dir() else path.name
        reports.append(ObjectReport(name, uids[path], issues, None))
    return reports


def _uid_or_nothing(path: Path) -> str:
    try:
        return _uid_of(path)
    except CtenrichError:
        return ""


def instances_below(folder: Path) -> frozenset[str]:
    """Return the SOP Instance UIDs of all DICOM files below a folder."""
    found = set()
    for path in _files(folder):
        with suppress(CtenrichError):
            found.add(_uid_of(path))
    return frozenset(found - {""})


def _anew(context: StageContext, objects: tuple[EncodedObject, ...]) -> tuple[list[Issue], Proof | None]:
    paths = [context.workspace.resolve(context.uid, o.path) for o in objects]
    series = context.store.sorted_series(context.uid)
    issues = validate_objects(paths, settings=context.settings, sources=series.sop_instance_uids)
    return list(issues), prove_objects(context, objects)


def _kept_proof(context: StageContext) -> Proof | None:
    return context.store.find(Proof, context.uid, context.product)


def _reports_of(
    context: StageContext, objects: tuple[EncodedObject, ...], issues: Sequence[Issue], proof: Proof | None
) -> Iterator[ObjectReport]:
    """One report for each object; issues that name no object of the product apply to all of them."""
    uids = {o.sop_instance_uid for o in objects}
    shared = [i for i in issues if i.object not in uids and not i.rule.startswith("proof.")]
    failed = [c for c in proof.checks if not c.passed] if proof else []
    for item in objects:
        path = context.workspace.resolve(context.uid, item.path)
        own = [i for i in issues if i.object == item.sop_instance_uid]
        own += [Issue(f"proof.{c.name}", Severity.ERROR, item.sop_instance_uid, c.detail) for c in failed]
        if not path.is_file() or sha256_of_file(path) != item.sha256:
            message = "the file is not there, or is not the one that was written"
            own.append(Issue("file.changed", Severity.ERROR, item.sop_instance_uid, message, "ctenrich", __version__))
        name = path.relative_to(context.workspace.root).as_posix()
        proven = _PROVEN[proof.state_of(item.kind)] if proof is not None else False
        yield ObjectReport(name, item.sop_instance_uid, (*shared, *own), proven)


def _files(top: Path) -> list[Path]:
    return [path for path, _ in files_below(top)] if top.is_dir() else [top]


def _is_checked(path: Path) -> bool:
    try:
        with quiet():
            sop_class = str(header(path, ["SOPClassUID"]).get("SOPClassUID", ""))
            known = sop_class in SEGMENTATION_CLASSES or is_structured_report(sop_class)
            return known or (not sop_class and claims_to_be_dicom(path))
    except CtenrichError:
        return claims_to_be_dicom(path)  # damaged: an error of the check, not a file of another kind


def _uid_of(path: Path) -> str:
    with quiet():
        return str(header(path, ["SOPInstanceUID"]).get("SOPInstanceUID", ""))
