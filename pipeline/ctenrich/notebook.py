"""Pictures, a slice viewer, progress bars and facts about the machine for notebooks, one call each."""

from __future__ import annotations

import base64
import importlib.util
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from ctenrich.catalog import open_catalog
from ctenrich.catalog.queries import load_query
from ctenrich.codes.mappings import codes_of
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks, Volume
from ctenrich.report.coronal import coronal_png
from ctenrich.report.pictures import PLANES, View, choose_view, overlay_png, picture_webp, plane_of
from ctenrich.runner.forecast import Prices, forecast, load_rates, products_of
from ctenrich.runner.run import Run
from ctenrich.select import read_cohort, sizes_of
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["Bar", "coronal", "log_in", "machine", "planes", "query_cost", "run_cost", "slice_viewer", "slope_chart"]

_MISSING = (90, 90, 90)


class Bar:
    """Progress for notebooks: one bar per task, redrawn in place."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def start(self, task: str, total: float | None = None) -> None:
        """Begin a task of `total` units."""
        self._tasks[task] = _Task(task, total)
        self._tasks[task].draw()

    def advance(self, task: str, amount: float = 1) -> None:
        """Count `amount` more units of `task` as done."""
        if task in self._tasks:
            self._tasks[task].done += amount
            self._tasks[task].draw()

    def note(self, message: str) -> None:
        """Show a line."""
        _display(_html(f"<small>{escape(message)}</small>"))

    def status(self, task: str, text: str) -> None:
        """Ignore the status: bars in a notebook are short."""

    def finish(self, task: str) -> None:
        """End the task."""
        if task in self._tasks:
            self._tasks[task].draw(ended=True)


class _Task:
    """One bar, redrawn at most five times a second."""

    def __init__(self, name: str, total: float | None) -> None:
        self.name, self.total, self.done = name, total, 0.0
        self._handle: Any = None
        self._drawn = 0.0

    def draw(self, *, ended: bool = False) -> None:
        """Show the bar, or redraw it."""
        now = time.monotonic()
        if not ended and now - self._drawn < 0.2:
            return
        self._drawn = now
        label = escape(self.name)
        of = f" of {self.total:g}" if self.total else ""
        value = f' value="{self.done:g}" max="{self.total:g}"' if self.total else ""
        bar = "" if ended else f'<progress aria-label="{label}"{value}></progress> '
        shown = _html(f"<small>{bar}{label}: {'done, ' if ended else ''}{self.done:g}{of}</small>")
        if self._handle is None:
            self._handle = _display(shown, handle=True)
        else:
            self._handle.update(shown)


def log_in(project: str = "") -> bool:
    """Ask for a Google account on Colab, if a project was named.

    Returns
    -------
    bool
        Whether the account was asked for. Elsewhere, run ``gcloud auth application-default login``.
    """
    if not project or not _on_colab():
        return False
    from importlib import import_module

    auth: Any = import_module("google.colab.auth")
    auth.authenticate_user(project_id=project)
    return True


def _on_colab() -> bool:
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:
        return False


def query_cost(query: str, catalog: str, parameters: Mapping[str, object]) -> str:
    """Describe the cost of a selection: the bytes of a dry run and their list price, or that it is free.

    Parameters
    ----------
    query : str
        A file, or the name of one in queries/.
    catalog : str
        As for ``steps.select``.
    parameters : mapping
        Values of the query's @parameters.

    Returns
    -------
    str
    """
    opened = open_catalog(catalog)
    try:
        found = opened.estimate(load_query(query), parameters)
    finally:
        opened.close()
    if found is None:
        return "This catalog costs nothing."
    return f"The query reads up to {found.bytes / 1e9:.3f} GB: at most ${found.price_usd:.2f} (list price)."


def run_cost(cohort: Path, segmenters: Sequence[str], bodypart: str, price_per_hour: float = 0.0) -> str:
    """Describe what a run would take: hours, gigabytes and price; nothing is run.

    Parameters
    ----------
    cohort : Path
        Cohort file.
    segmenters : sequence of str
        As for ``ctenrich run --segmenter``.
    bodypart : str
        Body part regression model, or ``none``.
    price_per_hour : float
        Price of the machine, in dollars.

    Returns
    -------
    str
    """
    products = products_of(segmenters, bodypart)
    found = forecast(sizes_of(read_cohort(cohort)), products, load_rates(), prices=Prices(price_per_hour))
    return (
        f"{found.series} series, {found.slices} slices, {found.gigabytes:.2f} GB to read; "
        f"{found.wall_hours:.2f} h, up to {found.peak_disk_gigabytes:.1f} GB of disk, ${found.cost:.2f} "
        f"(rates: {found.source})"
    )


def machine() -> dict[str, str]:
    """Return cores, memory and GPU of this machine, for the first cell."""
    import psutil

    found = {"cores": str(os.cpu_count()), "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB", "gpu": "none"}
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name(0)
    return found


def planes(run: Run, series: str, product: str = "") -> Any:
    """Draw the axial, coronal and sagittal plane of a series.

    Parameters
    ----------
    run : Run
        The run.
    series : str
        Series Instance UID.
    product : str
        Key of the product whose masks are shown; empty: the CT alone.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    UsageError
        NOT_FOUND if the series has no such product.
    """
    volume, masks = _volume_and_masks(run.workspace, series, product)
    view = choose_view(volume, [masks] if masks else [])
    return _html("".join(_picture(run.workspace, volume, masks, view, name) for name in PLANES))


def slice_viewer(run: Run, series: str, product: str = "") -> Any:
    """Show the three planes of `planes`, each with a slider (ipywidgets).

    Parameters
    ----------
    run : Run
        A run with volumes.
    series : str
        Series Instance UID.
    product : str
        Product whose masks are shown; empty: none.

    Returns
    -------
    ipywidgets.HBox

    Raises
    ------
    UsageError
        MISSING_EXTRA without ipywidgets; NOT_FOUND if the series has no such product.
    """
    try:
        import ipywidgets
    except ImportError:
        hint = "pip install 'ctenrich[notebooks]'"
        raise UsageError(Reason.MISSING_EXTRA, "the slice viewer needs ipywidgets", hint) from None
    volume, masks = _volume_and_masks(run.workspace, series, product)
    view = choose_view(volume, [masks] if masks else [])
    boxes = []
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        slider = ipywidgets.IntSlider(view.cut[axis], 0, view.shape[axis] - 1, description=name)
        shown = ipywidgets.HTML(_picture(run.workspace, volume, masks, view, name))

        def moved(change: Any, name: str = name, axis: int = axis, shown: Any = shown) -> None:
            cut = list(view.cut)
            cut[axis] = int(change["new"])
            there = replace(view, cut=(cut[0], cut[1], cut[2]))
            shown.value = _picture(run.workspace, volume, masks, there, name)

        slider.observe(moved, names="value")
        boxes.append(ipywidgets.VBox([slider, shown]))
    return ipywidgets.HBox(boxes)


def coronal(run: Run, series: str, product: str) -> Any:
    """Draw a coronal plane with the landmarks of a body part product as lines and its regions as bands.

    Parameters
    ----------
    run : Run
        The run.
    series : str
        Series Instance UID.
    product : str
        Key of the product, for example ``bodypart:demo-bodypart``.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    UsageError
        NOT_FOUND if the series has no such product.
    """
    volume, _ = _volume_and_masks(run.workspace, series, "")
    store = SeriesStore(run.workspace)
    chosen = _product(store, series, product)
    marks, parts = store.landmarks(series, chosen), store.regions(series, chosen)
    png = base64.b64encode(coronal_png(volume, marks, parts, workspace=run.workspace)).decode()
    found = ", ".join(item.name for item in marks.items if item.slice_index is not None)
    return _html(f'<img alt="Coronal plane with the landmarks {escape(found)}" src="data:image/png;base64,{png}">')


def slope_chart(scores: Any) -> Any:
    """Plot slice scores against the position along the scan, as an inline picture."""
    points = [(z, s) for z, s in zip(scores.z, scores.cleaned, strict=True) if s is not None]
    if not points:
        return _html("<p>No slice has a valid score.</p>")
    low, high = min(s for _, s in points), max(s for _, s in points)
    start, end = min(z for z, _ in points), max(z for z, _ in points)
    path = " ".join(_scaled(points, (start, end), (low, high)))
    return _html(
        f'<svg viewBox="0 0 420 220" width="420" role="img" aria-label="Scores from {low:.0f} to {high:.0f}">'
        f'<polyline points="{path}" fill="none" stroke="#0b5cad" stroke-width="2"/>'
        f'<text x="10" y="215" font-size="12">{start:.0f} to {end:.0f} mm; score {low:.1f} to {high:.1f}</text></svg>'
    )


def _scaled(points: list[tuple[float, float]], ends: tuple[float, float], values: tuple[float, float]) -> Iterator[str]:
    for z, s in points:
        x = 10 + 400 * (z - ends[0]) / ((ends[1] - ends[0]) or 1)
        yield f"{x:.1f},{195 - 180 * (s - values[0]) / ((values[1] - values[0]) or 1):.1f}"


def _volume_and_masks(workspace: Workspace, series: str, product: str) -> tuple[Volume, SegmentMasks | None]:
    store = SeriesStore(workspace)
    volume = store.volume(series)
    return volume, store.masks(series, _product(store, series, product)) if product else None


def _product(store: SeriesStore, series: str, key: str) -> Product:
    found = {str(product): product for product in store.products(series)}
    if key not in found:
        raise UsageError(
            Reason.NOT_FOUND, f"the series has no product {key!r}", f"it has: {', '.join(found) or 'none'}"
        )
    return found[key]


def _picture(workspace: Workspace, volume: Volume, masks: SegmentMasks | None, view: View, name: str) -> str:
    plane = plane_of(view, name)
    under = base64.b64encode(picture_webp(volume, view, name, workspace)).decode()
    over = ""
    if masks is not None:
        known = {s.number: codes_of(s.name) for s in masks.segments}
        colours = {number: code.colour if code else _MISSING for number, code in known.items()}
        drawn = base64.b64encode(overlay_png(masks, colours, view, name, workspace)).decode()
        over = f'<img alt="" style="position:absolute;left:0;top:0" src="data:image/png;base64,{drawn}">'
    size = f'width="{plane.width}" height="{plane.height}"'
    return (
        f'<span style="position:relative;display:inline-block;margin:4px"><img alt="{name} plane" {size} '
        f'src="data:image/webp;base64,{under}">{over}</span>'
    )


def _html(text: str) -> Any:
    import IPython.display as shown

    make: Any = shown.HTML
    return make(text)


def _display(item: Any, *, handle: bool = False) -> Any:
    import IPython.display as shown

    show: Any = shown.display
    return show(item, display_id=True) if handle else show(item)
