from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Check, Proof, SegmentMasks, Volume
from ctenrich.report import build, build_report
from ctenrich.report.charts import Bar, bars
from ctenrich.report.data import load_cohort, open_tables
from ctenrich.report.outliers import box
from ctenrich.report.pictures import choose_view, overlay_png, picture_webp, plane_of
from ctenrich.results.tables import build_tables
from ctenrich.review.store import version_of_uids
from ctenrich.workspace import Workspace, load_record, save_record
from tests.support.browser import chromium
from tests.support.report_runs import NETWORK, make_run, uid_of

EVIL = "<script>document.title='owned'</script>\"'&<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_run(tmp_path_factory.mktemp("made") / "run", 12, pictures=2, broken=2, text=EVIL)
    build_report(workspace)
    return workspace


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(path: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(path.read_text("utf-8"))
    return parser.tags


def test_every_series_has_a_page(run: Workspace) -> None:
    pages = {path.stem for path in (run.report / "series").glob("*.html")}
    assert pages == {uid_of(i) for i in range(12)}, "failed series have a page too"


def test_names_with_html_stay_text(run: Workspace) -> None:
    shown = ""
    for page in (run.report / "index.html", *(run.report / "series").glob("*.html")):
        text = page.read_text("utf-8")
        assert EVIL not in text
        assert not any("onerror" in a for _, a in tags(page))
        assert all(
            a.get("src", "").split("/")[-1].endswith(".js") for t, a in tags(page) if t == "script" and "src" in a
        )
        shown += text
    assert "&lt;script&gt;document.title" in shown, "the text is shown"


def test_a_demonstration_model_has_a_banner(run: Workspace, tmp_path: Path) -> None:
    banner = '<p class="demonstration" role="note"><b>DEMONSTRATION.</b> Made with test-organs'
    assert banner in (run.report / "index.html").read_text("utf-8")
    plain = make_run(tmp_path / "run", 1, pictures=0)
    assert 'class="demonstration"' not in build_report(plain).read_text("utf-8")


def test_every_picture_has_a_text(run: Workspace) -> None:
    pages = [run.report / "index.html", *sorted((run.report / "series").glob("*.html"))]
    found = [tag for page in pages for tag in tags(page)]
    assert all(a.get("alt") for t, a in found if t == "img")
    drawings = [a for t, a in found if t == "svg"]
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in drawings)
    stills = [a["aria-label"] for a in drawings if "CT picture" in (a.get("aria-label") or "")]
    assert len(stills) == 2 * 3
    assert stills[1] == f"Coronal CT picture with the masks of {NETWORK}, landmarks lung start, Th8, lung end"


def test_flow_balances(run: Workspace) -> None:
    text = (run.report / "index.html").read_text("utf-8")
    label = re.search(r'class="flow" role="img" aria-label="([^"]*)"', text)[1]
    assert label == (
        "Series selected: 12 series. Excluded: 2 series, failed: MISSING SLICE. Series done: 10 series. "
        "The numbers add up."
    )


def test_versions_of_objects_are_those_of_reviews(run: Workspace) -> None:
    with open_tables(run) as db:
        rows = list(load_cohort(run, db).series)
        objects = db.sql("SELECT SeriesInstanceUID, product, SOPInstanceUID FROM objects").fetchall()
    found = {(r["SeriesInstanceUID"], p): v for r in rows for p, v in zip(r["products"], r["versions"], strict=True)}
    assert {key for key, version in found.items() if version} == {(uid, product) for uid, product, _ in objects}
    for key, version in found.items():
        assert version == (version_of_uids([o[2] for o in objects if o[:2] == key]) if version else "")


def test_a_second_report_writes_nothing(run: Workspace) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.report.rglob("*") if p.is_file()}
    build_report(run)
    assert {p: p.stat().st_mtime_ns for p in run.report.rglob("*") if p.is_file()} == before


def test_a_change_in_one_series_builds_that_page_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = make_run(tmp_path / "run", 5, pictures=3)
    build_report(workspace)
    before = {p: p.stat().st_mtime_ns for p in workspace.report.rglob("*") if p.is_file()}
    assert len(before) > 5 + 3 * 5, "an index, a page for each series, three planes with overlays, slices and masks"
    record = workspace.product_dir(uid_of(1), NETWORK) / "proof.json"
    proof = load_record(record, Proof)
    save_record(record, replace(proof, checks=(*proof.checks, Check("again", True, "one more"))))
    built = []
    page_of = build.page_of

    def recorded(row: dict[str, Any], *rest: Any) -> dict[str, Any]:
        built.append(row["SeriesInstanceUID"])
        return page_of(row, *rest)

    monkeypatch.setattr(build, "page_of", recorded)
    build_report(workspace)
    assert built == [uid_of(1)], "the other pages are not even built"
    after = {p: p.stat().st_mtime_ns for p in workspace.report.rglob("*") if p.is_file()}
    assert {p.name for p in after if after[p] != before.get(p)} == {f"{uid_of(1)}.html", "pages.json"}
    (workspace.report / "series" / f"{uid_of(3)}.html").unlink()
    build_report(workspace)
    assert built == [uid_of(1), uid_of(3)], "a page that is missing is built"


def test_a_run_without_any_success(tmp_path: Path) -> None:
    workspace = make_run(tmp_path / "run", 2, broken=2)
    text = build_report(workspace).read_text("utf-8")
    assert "No series was finished." in text
    assert "MISSING_SLICE" in text


def test_without_tables(workspace: Workspace) -> None:
    with pytest.raises(UsageError) as caught:
        build_report(workspace)
    assert caught.value.reason is Reason.NOT_PREPARED


def test_without_a_ledger(tmp_path: Path) -> None:
    workspace = make_run(tmp_path / "run", 1, pictures=0)
    (workspace.root / "ledger.sqlite").unlink()
    build_tables(workspace)
    text = build_report(workspace).read_text("utf-8")
    assert "The ledger of the run is not here" in text


# ---------------------------------------------------------------- pictures


def _records(run: Workspace) -> tuple[Volume, SegmentMasks]:
    uid = uid_of(0)
    volume = load_record(run.series_dir(uid) / "volume.json", Volume)
    return volume, load_record(run.product_dir(uid, NETWORK) / "masks.json", SegmentMasks)


@pytest.mark.parametrize("name", ["axial", "coronal", "sagittal"])
def test_overlay_lies_where_the_mask_is(run: Workspace, name: str) -> None:
    volume, masks = _records(run)
    view = choose_view(volume, [masks])
    plane = plane_of(view, name)
    colours = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}
    drawn = Image.open(BytesIO(overlay_png(masks, colours, view, name, run))).convert("RGBA")
    assert drawn.size == (plane.width, plane.height)
    pixels = np.asarray(drawn)
    heart = (pixels[..., 0] > 0) & (pixels[..., 3] > 0)
    rows, columns = np.nonzero(heart)
    labels = np.load(run.resolve(uid_of(0), masks.label_map_path or ""))
    cut = {"axial": labels[view.cut[2]], "coronal": labels[::-1, view.cut[1]], "sagittal": labels[::-1, :, view.cut[0]]}
    want_rows, want_columns = np.nonzero(cut[name] == 1)
    scale = plane.height / cut[name].shape[0], plane.width / cut[name].shape[1]
    assert abs(rows.mean() - (want_rows.mean() + 0.5) * scale[0]) < 1.5
    assert abs(columns.mean() - (want_columns.mean() + 0.5) * scale[1]) < 1.5


def test_picture_is_square_pixels_with_air_black(run: Workspace) -> None:
    volume, masks = _records(run)
    view = choose_view(volume, [masks])
    plane = plane_of(view, "coronal")
    assert plane.height / plane.width == pytest.approx(40 * 8 / (80 * 2.5), rel=0.01)
    grey = np.asarray(Image.open(BytesIO(picture_webp(volume, view, "coronal", run))).convert("L"))
    assert grey[:, :3].max() < 20
    assert grey[:, plane.width // 2].min() > 60


def test_a_flipped_volume_shows_the_same_picture(run: Workspace, tmp_path: Path) -> None:
    """Stored feet to head and left to right, or the other way round: the reader sees the same patient."""
    from dataclasses import replace

    volume, _ = _records(run)
    array = np.load(run.resolve(uid_of(0), volume.array_path))
    flipped = run.series_dir(uid_of(0)) / "volume" / "flipped.npy"
    np.save(flipped, np.ascontiguousarray(array[::-1, :, ::-1]))
    affine = ((-2.5, 0.0, 0.0, 97.5), (0.0, 2.5, 0.0, -80.0), (0.0, 0.0, -8.0, 252.0), (0.0, 0.0, 0.0, 1.0))
    other = replace(volume, array_path="volume/flipped.npy", affine_lps=affine)
    view = choose_view(volume, [])
    turned = replace(choose_view(other, []), cut=(79 - view.cut[0], view.cut[1], 39 - view.cut[2]))
    for name in ("axial", "coronal", "sagittal"):
        assert picture_webp(volume, view, name, run) == picture_webp(other, turned, name, run), name
    flipped.unlink()


def test_box_is_tukeys() -> None:
    found = box([1, 2, 3, 4, 5, 6, 7, 8, 100])
    assert (found["q1"], found["median"], found["q3"], found["high"], found["max"]) == (3, 5, 7, 8, 100)


# ---------------------------------------------------------------- in a browser


@pytest.mark.long
def test_long_names_stay_inside_their_chart(run: Workspace) -> None:
    name = "validate nnunet:Dataset055_SegTHOR:3d_cascade_fullres:0,1,2,3,4:mirror"
    chart = bars([Bar(name, 123456.0, "123,456.0 s"), Bar("fetch", 1.0, "1.0 s")], "Seconds")
    with chromium() as seen:
        seen.page.goto(f"file://{run.report / 'index.html'}")
        seen.page.locator("main").evaluate("(element, svg) => { element.innerHTML = svg; }", str(chart))
        boxes = seen.page.locator("main svg.bars text").evaluate_all(
            "all => all.map(t => [t.getBBox().x, t.getBBox().x + t.getBBox().width])"
        )
    assert len(boxes) == 4
    assert all(0 <= left < right <= 700 for left, right in boxes), boxes


def luminance(colour: str) -> float:
    text = colour.lstrip("#")
    text = "".join(c * 2 for c in text) if len(text) == 3 else text
    parts = [int(text[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_light_and_dark() -> None:
    """WCAG 2.2, 1.4.3: text at 4.5 to 1 or more."""
    css = (Path(build.__file__).parent / "templates" / "report.css").read_text("utf-8")
    themes = [dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", block)) for block in re.findall(r":root\{([^}]*)\}", css)]
    light, dark = themes[0], {**themes[0], **themes[1]}
    assert light["paper"] != dark["paper"]
    for theme in (light, dark):
        for ground in ("paper", "wash"):
            for text in ("ink", "soft", "accent", "good", "bad", "warn"):
                high, low = sorted((luminance(theme[text]), luminance(theme[ground])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
