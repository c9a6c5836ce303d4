"""Pictures of a run with window, labels, legend and units; each function draws one figure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from ctenrich.codes.mappings import codes_of
from ctenrich.errors import UsageError
from ctenrich.notebook.output import html, pyplot
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks, SliceScores, SortedSeries, Volume
from ctenrich.report.coronal import coronal_png
from ctenrich.report.pictures import PLANES, View, choose_view, overlay_png, picture_webp, plane_of
from ctenrich.runner.run import Run
from ctenrich.select.consort import consort_of, consort_svg
from ctenrich.series_store import SeriesStore
from ctenrich.tools import need_package
from ctenrich.workspace import Workspace

__all__ = ["Example", "coronal", "example", "flow", "planes", "positions", "score_chart", "slice_viewer"]

_MISSING = (90, 90, 90)
_WINDOW = "window 40/400 HU"
_SIDES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""Letters at the left, right, top and bottom edge of a picture (PS3.3 C.7.6.1.1.1: patient directions)."""
_DPI = 80


@dataclass(frozen=True, kw_only=True)
class Example:
    """The series that a notebook shows: of those with a volume, the first with the most products."""

    series: str
    masks: tuple[str, ...]
    """Keys of its products with masks; experts' contours last."""
    scores: tuple[str, ...]
    """Keys of its body part products."""


def example(run: Run) -> Example:
    """Choose a series to show; in a mixed cohort not every series has every product.

    Raises
    ------
    UsageError
        NOT_PREPARED if no series has a volume.
    """
    store, found = SeriesStore(run.workspace), []
    for entry in run.cohort.series:
        uid = entry.series_instance_uid
        if store.find(Volume, uid) is None:
            continue
        keys = {str(p): p for p in store.products(uid)}
        masks = [key for key, p in keys.items() if store.find(SegmentMasks, uid, p) is not None]
        scores = tuple(key for key, p in keys.items() if store.find(SliceScores, uid, p) is not None)
        masks.sort(key=lambda key: key == "expert")
        found.append(Example(series=uid, masks=tuple(masks), scores=scores))
    if not found:
        raise UsageError(
            Reason.NOT_PREPARED, "no series of the run has a volume", "see its reasons: ctenrich status RUN"
        )
    return max(found, key=lambda one: len(one.masks) + len(one.scores))


def flow(cohort: Path) -> Any:
    """Draw the CONSORT flow of a selection: what entered, what was excluded for which reason, what is left.

    Parameters
    ----------
    cohort : Path
        Cohort file; the excluded series are in the file beside it.

    Returns
    -------
    IPython.display.HTML
    """
    return html(consort_svg(consort_of(cohort), standalone=True))


def planes(run: Run, series: str, product: str = "") -> Any:
    """Draw the axial, coronal and sagittal plane of a series, with the masks of a product and their volumes.

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
    matplotlib.figure.Figure

    Raises
    ------
    UsageError
        NOT_FOUND if the series has no such product; MISSING_EXTRA without matplotlib.
    """
    volume, masks = _volume_and_masks(run.workspace, series, product)
    view = choose_view(volume, [masks] if masks else [])
    figure = _new_figure(3, 4.2)
    for axes, name in zip(figure.axes, PLANES, strict=True):
        _draw_plane(axes, name, view, _pictures(run.workspace, volume, masks, view, name))
    figure.suptitle(f"{product or 'CT'} ({_WINDOW})", fontsize=10)
    if masks is not None:
        _add_legend(figure, masks, volume)
    return figure


def _new_figure(columns: int, height: float) -> Any:
    plt = pyplot()
    figure, _ = plt.subplots(1, columns, figsize=(10, height), dpi=_DPI, layout="constrained", squeeze=False)
    plt.close(figure)
    return figure


def _pictures(
    workspace: Workspace, volume: Volume, masks: SegmentMasks | None, view: View, name: str
) -> tuple[bytes, ...]:
    """The CT as WebP, and the masks as PNG of the same size."""
    under = picture_webp(volume, view, name, workspace)
    if masks is None:
        return (under,)
    return under, overlay_png(masks, _colours(masks), view, name, workspace)


def _colours(masks: SegmentMasks) -> dict[int, tuple[int, int, int]]:
    known = {s.number: codes_of(s.name) for s in masks.segments}
    return {number: code.colour if code else _MISSING for number, code in known.items()}


def _draw_plane(axes: Any, name: str, view: View, layers: tuple[bytes, ...]) -> None:
    """Draw one plane on axes in mm, with the patient's directions at its edges."""
    from PIL import Image

    plane = plane_of(view, name)
    width, height = (view.shape[axis] * view.spacing[axis] for axis in (plane.right, plane.down))
    for layer in layers:
        with Image.open(BytesIO(layer)) as picture:
            axes.imshow(picture.convert("RGBA"), extent=(0, width, height, 0))
    left, right, top, bottom = _SIDES[name]
    spots = ((0.02, 0.5, left), (0.98, 0.5, right), (0.5, 0.97, top), (0.5, 0.03, bottom))
    for x, y, letter in spots:
        axes.text(x, y, letter, transform=axes.transAxes, color="yellow", ha="center", va="center", fontsize=9)
    axes.set_title(f"{name}, slice {view.cut[plane.fixed] + 1} of {view.shape[plane.fixed]}", fontsize=9)
    axes.set_xlabel("mm", fontsize=8)
    axes.tick_params(labelsize=7)


def _add_legend(figure: Any, masks: SegmentMasks, volume: Volume) -> None:
    from matplotlib.patches import Patch

    millilitres = volume.spacing[0] * volume.spacing[1] * volume.spacing[2] / 1e3
    colours, handles = _colours(masks), []
    for segment in masks.segments:
        size = f"{segment.voxels * millilitres:.0f} mL" if segment.voxels else "absent"
        colour = "#{:02x}{:02x}{:02x}".format(*colours[segment.number])
        handles.append(Patch(facecolor=colour, label=f"{segment.name.replace('_', ' ')}, {size}"))
    figure.legend(handles=handles[:24], loc="outside lower center", ncols=min(len(handles), 5), fontsize=8)


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
    need_package("ipywidgets", extra="colab", purpose="the slice viewer")
    import ipywidgets

    volume, masks = _volume_and_masks(run.workspace, series, product)
    view = choose_view(volume, [masks] if masks else [])
    boxes = []
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        slider = ipywidgets.IntSlider(view.cut[axis], 0, view.shape[axis] - 1, description=name)
        shown = ipywidgets.Image(format="png", value=_flat_png(_pictures(run.workspace, volume, masks, view, name)))

        def moved(change: Any, name: str = name, axis: int = axis, shown: Any = shown) -> None:
            cut = list(view.cut)
            cut[axis] = int(change["new"])
            there = replace(view, cut=(cut[0], cut[1], cut[2]))
            shown.value = _flat_png(_pictures(run.workspace, volume, masks, there, name))

        slider.observe(moved, names="value")
        boxes.append(ipywidgets.VBox([slider, shown]))
    return ipywidgets.HBox(boxes)


def _flat_png(layers: tuple[bytes, ...]) -> bytes:
    from PIL import Image

    flat = Image.open(BytesIO(layers[0])).convert("RGBA")
    for layer in layers[1:]:
        flat.alpha_composite(Image.open(BytesIO(layer)).convert("RGBA"))
    buffer = BytesIO()
    flat.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


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
    IPython.display.Image

    Raises
    ------
    UsageError
        NOT_FOUND if the series has no such product.
    """
    import IPython.display as shown

    volume, _ = _volume_and_masks(run.workspace, series, "")
    store = SeriesStore(run.workspace)
    chosen = _product(store, series, product)
    marks, parts = store.landmarks(series, chosen), store.regions(series, chosen)
    found = ", ".join(item.name for item in marks.items if item.slice_index is not None)
    make: Any = shown.Image
    return make(data=coronal_png(volume, marks, parts, workspace=run.workspace), alt=f"Coronal plane with {found}")


def positions(series: SortedSeries) -> Any:
    """Plot the position of each slice along the slice normal: a straight line for a regular volume.

    Parameters
    ----------
    series : SortedSeries
        The ordered slices.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new_figure(1, 3)
    axes = figure.axes[0]
    axes.plot([s.distance for s in series.slices], ".", markersize=4)
    axes.set_title(f"{len(series.slices)} slices, spacing {series.slice_spacing:.2f} mm", fontsize=10)
    axes.set_xlabel("slice, in the order of the volume")
    axes.set_ylabel("position along the normal, mm")
    axes.grid(alpha=0.3)
    return figure


def score_chart(scores: SliceScores) -> Any:
    """Plot the slice scores of body part regression against the position along the scan.

    Parameters
    ----------
    scores : SliceScores
        Scores of one series.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new_figure(1, 3)
    axes = figure.axes[0]
    pairs = [(z, s) for z, s in zip(scores.z, scores.cleaned, strict=True) if s is not None]
    axes.plot([z for z, _ in pairs], [s for _, s in pairs], color="#0b5cad")
    low, high = (f"{end(s for _, s in pairs):.0f}" if pairs else "none" for end in (min, max))
    axes.set_title(f"slice scores from {low} (towards the feet) to {high} (towards the head)", fontsize=10)
    axes.set_xlabel("position along the scan, mm")
    axes.set_ylabel("slice score")
    axes.grid(alpha=0.3)
    return figure


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
