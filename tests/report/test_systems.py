"""Many structures in a report: by body system, with a row each, and found by typing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctenrich.codes.tasks import task_classes
from ctenrich.records import Segment, SegmentMasks
from ctenrich.report import build, build_report, index_page
from ctenrich.report.data import CohortData, Group, RunData, load_cohort, load_part
from ctenrich.report.systems import body_system, by_system
from ctenrich.workspace import Workspace, load_record, save_record
from tests.support.browser import chromium
from tests.support.report_runs import NETWORK, make_run, uid_of

TOTAL = [item.segment for item in task_classes("totalsegmentator:total")]
QUANTITIES = (("Sphericity", "1"), ("Volume", "mm3"))


def test_structures_are_grouped_by_body_system() -> None:
    assert {body_system(name) for name in ("kidney_left", "kidney_left#2", "bladder")} == {
        "Urinary and reproductive organs"
    }
    groups = dict(by_system([*TOTAL, "roi:ptv"]))
    assert next(iter(groups)) == "Findings and devices"
    assert list(groups)[-1] == "Other structures"
    assert groups["Other structures"] == ["roi:ptv"]
    assert groups["Findings and devices"] == ["kidney_cyst_left", "kidney_cyst_right"]
    assert len(groups["Skeleton"]) == 26 + 24 + 13, "spine with sacrum, ribs, all others"
    assert sorted(name for names in groups.values() for name in names) == sorted([*TOTAL, "roi:ptv"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The report of one series with the 117 classes of `total`, all of which were measured."""
    workspace = make_run(tmp_path_factory.mktemp("many") / "run", 1)
    path = workspace.product_dir(uid_of(0), NETWORK) / "masks.json"
    masks = load_record(path, SegmentMasks)
    segments = [Segment(n, name, name, 0) for n, name in enumerate(TOTAL, start=1) if n > 3]
    named = [replace(item, name=name) for item, name in zip(masks.segments, TOTAL, strict=False)]
    save_record(path, replace(masks, segments=(*named, *segments)))

    product = str(NETWORK)
    values = [(q, u, name, 1000.5 + n) for q, u in QUANTITIES for n, name in enumerate(TOTAL)]

    def part(db: Any, uids: Sequence[str]) -> RunData:
        data = load_part(db, uids)
        keys = ("quantity", "unit", "segment", "value")
        data.measurements[uid_of(0)] = [{"product": product, **dict(zip(keys, v, strict=True))} for v in values]
        return data

    def features(_: Any, quantity: Mapping[str, Any]) -> list[Group]:
        return [
            Group(
                quantity=q, unit=u, organ=name, product=product, series=np.zeros(1, np.int32), values=np.array([value])
            )
            for q, u, name, value in values
            if q == quantity["quantity"]
        ]  # fmt: skip

    def cohort(of: Workspace, db: Any) -> CohortData:
        return replace(load_cohort(of, db), quantities=[{"quantity": q, "unit": u} for q, u in QUANTITIES])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_part", part)
        patch.setattr(build, "load_cohort", cohort)
        patch.setattr(index_page, "load_features", features)
        build_report(workspace)
    return workspace


def test_each_structure_has_a_row_below_its_system(run: Workspace) -> None:
    text = (run.report / "series" / f"{uid_of(0)}.html").read_text("utf-8")
    table = text[text.index('<table class="organs">') :].partition("</table>")[0]
    assert "<th>Structure</th>" in table
    assert '<th class="num">Volume, mL</th><th class="num">Sphericity</th>' in table
    assert table.count("<tbody>") == table.count('class="system"') == len(by_system(TOTAL))
    assert table.count('<th scope="row">') == 117
    liver = table[table.index('<th scope="row">liver</th>') :].partition("</tr>")[0]
    assert liver.count('<td class="num">') == 2
    assert liver.endswith('<td class="num">1.00</td><td class="num">1,004</td>'), "1,004.5 mm3 and a number"
    assert text.count('<details class="b-system"') == len(by_system(TOTAL))
    assert text.count('<details class="b-system" open>') == 2, "the systems of the structures that are there"


def test_a_few_structures_are_one_list(tmp_path: Path) -> None:
    workspace = make_run(tmp_path / "run", 1)
    build_report(workspace)
    text = (workspace.report / "series" / f"{uid_of(0)}.html").read_text("utf-8")
    assert text.count('<details class="b-system" open>') == 1
    assert "rowgroup" not in text


@pytest.mark.long
def test_structures_are_found_by_typing_in_a_browser(run: Workspace) -> None:
    from playwright.sync_api import expect

    with chromium() as seen:
        page = seen.page
        page.goto(f"file://{run.report / 'index.html'}")
        page.wait_for_selector("#chart a.pt")
        chosen = page.locator("#chart-organ")
        assert chosen.locator("optgroup").count() == len(by_system(TOTAL))
        page.select_option("#chart-organ", "system:Digestive organs and spleen")
        points = page.locator("#chart a.pt")
        expect(points).to_have_count(len(dict(by_system(TOTAL))["Digestive organs and spleen"]))
        page.select_option("#chart-organ", "rib_left_7")
        expect(points).to_have_count(1)
        page.goto(f"file://{run.report}/series/{uid_of(0)}.html")
        page.wait_for_selector(".bench[data-ready]")
        page.fill("input.organ-find", "rib left")
        assert page.locator("table.organs tbody tr:not(.system):visible").count() == 12
        assert page.locator("table.organs tr.system:visible").all_inner_texts() == ["Skeleton"]
        assert page.locator(".legend li:visible").count() == 12
        assert page.locator(".b-system summary:visible").all_inner_texts() == ["Skeleton (absent)"]
        page.fill("input.organ-find", "")
        assert page.locator("table.organs tbody tr:not(.system):visible").count() == 117
        assert seen.errors == []
