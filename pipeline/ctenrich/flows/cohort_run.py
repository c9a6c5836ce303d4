"""Run a flow on the studies of a cohort, catalog or folder, as a listener runs it on those that arrive."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.catalog.queries import Query
from ctenrich.dicom.texts import read_texts
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.flows.attributes import parse_attribute
from ctenrich.flows.builtin import products_by_source
from ctenrich.flows.expected import ModalityFile
from ctenrich.flows.records import SRC, Flow
from ctenrich.flows.running import (
    EndState,
    RunRequest,
    end_left_steps,
    executor_of,
    owner_of,
    run_flow,
    settings_of,
)
from ctenrich.flows.step_graph import check_containers
from ctenrich.flows.trial import decide
from ctenrich.flows.triggers import attributes_of
from ctenrich.inference.device import check_device
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Instance
from ctenrich.select.cohort_file import open_cohort
from ctenrich.workspace import check_uid, write_bytes

__all__ = ["StudyEnd", "run_on_cohort"]

_FLOW = "flow.yaml"
_STUDIES = "studies.csv"
_INPUT = "input.txt"
"""Names, sizes and times of the files of a study."""
_FILES = "SELECT StudyInstanceUID, gcs_url FROM dicom_all ORDER BY StudyInstanceUID, SOPInstanceUID"
_SERIES, _MODALITY = parse_attribute("SeriesInstanceUID"), parse_attribute("Modality")


@dataclass(frozen=True, kw_only=True)
class StudyEnd:
    """How a flow ended on a study."""

    study_instance_uid: str
    state: str
    """``not fired``, ``done``, ``skipped`` or ``failed``; ``interrupted`` ends the run."""
    images: int = 0
    """Files of its input."""
    objects: int = 0
    """Objects that it has made."""
    reason: str = ""
    message: str = ""


def run_on_cohort(
    flow: Flow, content: bytes, source: str, out: Path, request: RunRequest, *, progress: Progress = SILENT
) -> Iterator[StudyEnd]:
    """Run a flow on each study of a source; nothing is sent.

    Parameters
    ----------
    flow : Flow
        The flow.
    content : bytes
        Its file, which is kept beside the results.
    source : str
        A cohort file whose images are local files (a study then has the series of the cohort and their companions), a
        folder of DICOM files, or ``folder:FILE``, a catalog of ``ctenrich index``.
    out : Path
        Folder of the results: ``studies/UID`` as a listener has it for a flow, and ``studies.csv``.
    request : RunRequest
        Settings of the products.
    progress : Progress
        Receives the steps of an index.

    Yields
    ------
    StudyEnd
        One per study, by Study Instance UID.

    Raises
    ------
    UsageError
        BAD_FLOW for a flow whose steps cannot be run; BAD_SETTINGS; BAD_RUN if `out` has results of another flow or
        version; BAD_PARAMETER for images that are not local files, or an unknown executor; NOT_FOUND; the errors of the
        catalog or cohort file.
    OSError
        The disk is full.
    """
    products_by_source(flow)
    check_containers(flow)
    executor_of(request)
    check_device(settings_of(request).segment.device)
    _claim(out, content)
    studies = _studies(source, out, progress)
    request = replace(request, owner=owner_of(out))
    end_left_steps(request)
    ended = []
    for uid in sorted(studies):
        end = _run_on_study(flow, uid, studies[uid], out, request)
        if end.state != EndState.INTERRUPTED:
            ended.append(end)
            write_bytes(out / _STUDIES, _csv(ended))
        yield end
        if end.state == EndState.INTERRUPTED:
            return


def _claim(out: Path, content: bytes) -> None:
    """Keep the flow file in the folder of results; refuse a folder with another one."""
    kept = out / _FLOW
    if kept.is_file():
        if kept.read_bytes() != content:
            message = f"{out.name} has results of another flow, or of another version of it"
            raise UsageError(Reason.BAD_RUN, message, "choose another --out")
        return
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(Reason.BAD_RUN, f"{out.name} holds other files", "choose an --out that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(kept, content, durable=True)


def _studies(source: str, out: Path, progress: Progress) -> Mapping[str, list[Path]]:
    """Files of each study."""
    path = Path(source)
    found: dict[str, list[Path]] = defaultdict(list)
    if path.is_file() and path.suffix == ".parquet":
        for entry in open_cohort(path).series:
            instances = [*entry.instances, *(one.instance for one in entry.companions)]
            found[entry.study_instance_uid] += _in_order(instances)
        return {uid: list(dict.fromkeys(files)) for uid, files in found.items()}
    catalog = source
    if path.is_dir():
        if out.resolve().is_relative_to(path.resolve()):
            message = "--out is inside the folder of images, whose next index would take results for input"
            raise UsageError(Reason.BAD_PARAMETER, message, "choose an --out beside it")
        index_folders([path], out / "catalog.duckdb", progress=progress)
        catalog = f"folder:{out / 'catalog.duckdb'}"
    elif not source.startswith("folder:"):
        hint = "give a cohort file, a folder of DICOM files, or folder:FILE"
        raise UsageError(Reason.NOT_FOUND, f"there is no cohort or folder {source}", hint)
    with closing(open_catalog(catalog)) as opened:
        for row in opened.run(Query(name="files", text=_FILES), {}).table.to_pylist():
            found[row["StudyInstanceUID"]].append(_local(row["gcs_url"] or ""))
    return found


def _in_order(instances: Sequence[Instance]) -> list[Path]:
    return [_local(one.url) for one in sorted(instances, key=lambda one: one.sop_instance_uid)]


def _local(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme != "file" or url.endswith("/"):
        message = "images of the cohort are not files of this machine"
        raise UsageError(Reason.BAD_PARAMETER, message, "download them, and give their folder")
    return Path(unquote(parts.path))


def _run_on_study(flow: Flow, uid: str, paths: Sequence[Path], out: Path, request: RunRequest) -> StudyEnd:
    known = [(path, file) for path in paths if (file := _file(path, flow)) is not None]
    (outcome,) = decide([flow], [file for _, file in known])
    if not outcome.fires:
        state = "failed" if outcome.reason else "not fired"
        missing = ", ".join(one.part for one in outcome.failures)
        return StudyEnd(study_instance_uid=uid, state=state, reason=outcome.reason, message=missing)
    folder = out / "studies" / check_uid(uid)
    files = {f"{number:06d}.dcm": path for number, (path, _) in enumerate(known, 1)}
    _check_same(folder, files)
    names = list(files)
    chosen = {SRC: outcome.files, **outcome.roles}
    sources = {name: {names[place]: files[names[place]] for place in places} for name, places in chosen.items()}
    found = run_flow(flow, sources, folder, request)
    return StudyEnd(
        study_instance_uid=uid,
        state=found.end.state.value,
        images=len(outcome.files),
        objects=len(found.files),
        reason=found.end.reason,
        message=found.end.message,
    )


def _file(path: Path, flow: Flow) -> ModalityFile | None:
    """A file as triggers see it; None if its header cannot be read: it matches no trigger."""
    attributes = (*attributes_of([flow]), _SERIES, _MODALITY)
    try:
        texts = read_texts(path, [one.tag for one in attributes])
    except CtenrichError:
        return None
    found = {one: texts[one.tag] for one in attributes if one.tag in texts}
    return ModalityFile(series=found.get(_SERIES, ""), modality=found.get(_MODALITY, ""), texts=found)


def _check_same(folder: Path, files: Mapping[str, Path]) -> None:
    """Refuse to go on with a study whose files have changed: its links and results are those of the earlier ones."""
    lines = []
    for name, path in files.items():
        status = path.stat()
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns} {path}\n")
    kept = folder / _INPUT
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, "".join(lines).encode(errors="surrogateescape"))
    elif kept.read_bytes() != "".join(lines).encode(errors="surrogateescape"):
        raise UsageError(Reason.BAD_RUN, "files of a study have changed since it was run", "choose another --out")


def _csv(ended: Sequence[StudyEnd]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([one.name for one in fields(StudyEnd)])
    writer.writerows(astuple(one) for one in ended)
    return text.getvalue().encode()
