"""What notebooks show: pictures, a slice viewer, a progress bar and the machine, one call each."""

from __future__ import annotations

import base64
import importlib.util
import os
from html import escape
from typing import TYPE_CHECKING, Any

from ctenrich.codes import load_segments
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, Volume
from ctenrich.workspace import Workspace, load_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctenrich.report.pictures import View
    from ctenrich.run import Run

__all__ = ["Bar", "machine", "planes", "slice_viewer", "slope_chart"]

_MISSING = (90, 90, 90)


class Bar:
    """Progress for notebooks: one line a task, rewritten in place where the front end can."""

    def __init__(self) -> None:
        self._done: dict[str, float] = {}
        self._total: dict[str, float | None] = {}

    def start(self, task: str, total: float | None = None) -> None:
        """Begin a task of `total` units."""
        self._done[task], self._total[task] = 0.0, total

    def advance(self, task: str, amount: float = 1) -> None:
        """`amount` more units of `task` are done."""
        self._done[task] = self._done.get(task, 0.0) + amount

    def note(self, message: str) -> None:
        """Show a line."""
        _display(_html(f"<small>{escape(message)}</small>"))

    def finish(self, task: str) -> None:
        """The task has ended."""
        total = self._total.get(task)
        _display(_html(f"<small>{escape(task)}: done{f' ({total:g})' if total else ''}</small>"))


def machine() -> dict[str, str]:
    """Cores, memory and GPU of this machine, for the first cell."""
    import psutil

    found = {"cores": str(os.cpu_count()), "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB", "gpu": "none"}
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name(0)
    return found


def planes(run: Run, series: str, product: str = "") -> Any:
    """Axial, coronal and sagittal picture of a series with the masks of a product (the CT alone without one)."""
    volume, masks = _load(run.workspace, series, product)
    from ctenrich.report.pictures import PLANES, choose_view

    view = choose_view(volume, [masks] if masks else [])
    return _html("".join(_picture(run.workspace, volume, masks, view, name) for name in PLANES))


def slice_viewer(run: Run, series: str, product: str = "") -> Any:
    """The same three planes with a slider each (ipywidgets)."""
    try:
        import ipywidgets
    except ImportError:
        hint = "pip install 'ctenrich[notebooks]'"
        raise UsageError(Reason.MISSING_EXTRA, "the slice viewer needs ipywidgets", hint) from None
    from dataclasses import replace

    from ctenrich.report.pictures import choose_view

    volume, masks = _load(run.workspace, series, product)
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


def slope_chart(scores: Any) -> Any:
    """Slice scores against the place along the scan, as an inline picture."""
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


def _load(workspace: Workspace, series: str, product: str) -> tuple[Volume, SegmentMasks | None]:
    volume = load_record(workspace.room(series) / "volume.json", Volume)
    if not product:
        return volume, None
    folder = product.replace(":", "__").replace(",", "-")
    return volume, load_record(workspace.room(series) / folder / "masks.json", SegmentMasks)


def _picture(workspace: Workspace, volume: Volume, masks: SegmentMasks | None, view: View, name: str) -> str:
    from ctenrich.report.pictures import overlay_png, picture_webp, plane_of

    plane = plane_of(view, name)
    under = base64.b64encode(picture_webp(volume, view, name, workspace)).decode()
    over = ""
    if masks is not None:
        known = load_segments()
        colours = {s.number: known[s.name].colour if s.name in known else _MISSING for s in masks.segments}
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


def _display(item: Any) -> None:
    import IPython.display as shown

    show: Any = shown.display
    show(item)
