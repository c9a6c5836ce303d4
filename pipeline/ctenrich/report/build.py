"""Write the report of a run: a folder of plain HTML files that works from disk, offline."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ctenrich import __version__
from ctenrich.masks import has_arrays
from ctenrich.progress import SILENT, Progress
from ctenrich.records import SegmentMasks, Volume
from ctenrich.report.data import CohortData, load_cohort, load_part, open_tables
from ctenrich.report.freshness import PageStates, series_states, software_state
from ctenrich.report.index_page import IndexInputs, model_rows, write_index
from ctenrich.report.neighbours import neighbours_of
from ctenrich.report.review_controls import review_bar, review_controls
from ctenrich.report.series_page import Pictures, SeriesIndex, page_of
from ctenrich.report.thumbnails import ThumbnailPlane, coronal_plane, segment_colour, thumbnail_webp
from ctenrich.review.records import ReviewState
from ctenrich.review.store import ReviewStore, run_identifier
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, write_bytes

if TYPE_CHECKING:
    import duckdb

__all__ = ["LOCAL_VIEWER", "build_report"]

LOCAL_VIEWER = "http://127.0.0.1:8790/open/{}"
"""Where `ctenrich view` shows a local series."""
_AT_ONCE = 500
"""Series whose rows are in memory at once."""

Row = dict[str, Any]
_TEMPLATES = Path(__file__).parent / "templates"


def build_report(workspace: Workspace, *, progress: Progress = SILENT) -> Path:
    """Write ``report/`` from the run's tables: ``index.html`` with its data, and one page per series.

    A page is built again only if the series' rows in the tables, its records, its reviews or the software changed since
    the last report; see :mod:`ctenrich.report.freshness`. Memory does not grow with the pages.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.
    progress : Progress
        Advanced by every series.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    UsageError
        NOT_PREPARED if the run has no tables yet.
    """
    with open_tables(workspace) as db:
        data = load_cohort(workspace, db)
        models = model_rows(workspace, data)
        shared = _Shared(
            workspace=workspace,
            data=data,
            demonstration=", ".join(sorted({row["name"] for row in models if row["demo"]})),
            run=run_identifier(workspace),
            reviews={key: found.state.value for key, found in ReviewStore(workspace).states().items()},
            neighbours=neighbours_of(db),
        )
        _write_assets(workspace.report / "assets")
        _write_pages(db, shared, progress)
        inputs = IndexInputs(
            workspace=workspace,
            data=data,
            models=models,
            reviews=shared.reviews,
            thumbnails=_stems(workspace.report / "thumbnails", ".webp"),
            local_viewer=LOCAL_VIEWER,
        )
        text = write_index(db, inputs, _environment(), demonstration=shared.demonstration, run=shared.run)
    target = workspace.report / "index.html"
    write_changed(target, text)
    return target


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What the pages of all series have in common."""

    workspace: Workspace
    data: CohortData
    demonstration: str
    run: str
    reviews: dict[tuple[str, str], str]
    neighbours: dict[str, list[Row]]
    """Series Instance UID -> series with the nearest feature vectors."""

    def controls(self, row: Row) -> list[Markup]:
        """Review controls of each product of a series."""
        uid, none = row["SeriesInstanceUID"], ReviewState.NOT_REVIEWED.value
        return [
            review_controls(uid, product, version, self.reviews.get((uid, product), none))
            for product, version in zip(row["products"], row["versions"], strict=True)
        ]

    @property
    def more(self) -> dict[str, str]:
        """Text that belongs to the page of a series beside its rows and records: its reviews and its neighbours."""
        found: dict[str, list[str]] = defaultdict(list)
        for (uid, product), state in sorted(self.reviews.items()):
            found[uid].append(f"{product}:{state}")
        for uid, rows in self.neighbours.items():
            found[uid].append(repr(rows))
        return {uid: "|".join(texts) for uid, texts in found.items()}


def viewer_of(row: Row) -> str:
    """Address of a series in a viewer: IDC's for a series of IDC, ours for a local one."""
    return str(row["viewer_url"] or LOCAL_VIEWER.format(row["SeriesInstanceUID"]))


def write_changed(path: Path, text: str) -> None:
    """Write a text file unless it is there with the same content."""
    content = text.encode("utf-8")
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def _stems(folder: Path, suffix: str) -> frozenset[str]:
    """Names without suffix of the files of a kind; none where there is no such folder."""
    if not folder.is_dir():
        return frozenset()
    return frozenset(name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix))  # noqa: PTH208


def _write_assets(folder: Path) -> None:
    for path in sorted(_TEMPLATES.iterdir()):
        if path.suffix in (".css", ".js"):
            write_changed(folder / path.name, path.read_text("utf-8"))


def _write_pages(db: duckdb.DuckDBPyConnection, shared: _Shared, progress: Progress) -> None:
    """Write the pages and thumbnails of the series that changed."""
    report, rows = shared.workspace.report, shared.data.series
    kept = PageStates(report / "pages.json", software_state(_TEMPLATES, __version__, shared.demonstration, shared.run))
    states, folders = series_states(shared.workspace, db, shared.more, kept.folders)
    pages = _stems(report / "series", ".html")
    changed = [
        place
        for place, uid in enumerate(rows.column("SeriesInstanceUID"))
        if not kept.is_fresh(uid, states[uid]) or uid not in pages
    ]
    progress.start("report", len(changed))
    for start in range(0, len(changed), _AT_ONCE):
        _write_some_pages(db, shared, [rows[place] for place in changed[start : start + _AT_ONCE]], progress)
    progress.finish("report")
    kept.save(states, folders)


def _write_some_pages(db: duckdb.DuckDBPyConnection, shared: _Shared, rows: Sequence[Row], progress: Progress) -> None:
    part = load_part(db, [row["SeriesInstanceUID"] for row in rows])
    index, facts = SeriesIndex(part), {row["SeriesInstanceUID"]: row for row in part.series}
    pictures = Pictures(shared.workspace.report / "pictures", "../pictures/", shared.workspace)
    template = _environment().get_template("one.html")
    for row in rows:
        uid = row["SeriesInstanceUID"]
        page = page_of(facts[uid] | row, index, pictures, viewer_of(row))
        page["neighbours"] = shared.neighbours.get(uid, [])
        text = template.render(
            s=page,
            demonstration=shared.demonstration,
            reviews=shared.controls(row),
            bar=review_bar(shared.run),
            root="../",
        )
        write_changed(shared.workspace.report / "series" / f"{uid}.html", text)
        _write_thumbnail(shared.workspace, uid)
        progress.advance("report")


def _write_thumbnail(workspace: Workspace, uid: str) -> None:
    """Draw the coronal picture of a series with the masks of its products; none without a volume on the disk."""
    store = SeriesStore(workspace)
    volume = store.find_valid(Volume, uid)
    if volume is None or not workspace.resolve(uid, volume.array_path).is_file():
        return
    found = [m for p in store.products(uid) if (m := store.find_valid(SegmentMasks, uid, p)) is not None]
    masks = [m for m in found if has_arrays(m, workspace)]
    try:
        plane: ThumbnailPlane = coronal_plane(volume, masks)
    except ValueError:  # no axis of the volume is nearest to one of the patient
        return
    colours = {s.name: segment_colour(s.name) for m in masks for s in m.segments}
    content = thumbnail_webp(volume, masks, plane, colours, workspace)
    path = workspace.report / "thumbnails" / f"{uid}.webp"
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
