"""The three use cases that RadDeploy published, as flows of a listener; shell scripts stand for the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from tests.listener.test_case_flows import QUIET, FlowDesk
from tests.support.containers import ScriptEngine
from tests.support.listeners import study_files

from ctenrich.delivery.decisions import delivery_rows
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.flows import running, step_graph, step_outputs
from ctenrich.listener.cases import case_of

pytestmark = pytest.mark.long
NODE = "destinations: [{host: 10.1.2.3, port: 104, ae_title: PACS, hold: false}]\n"
ONE_MODALITY = "triggers: [{Modality: [^CT$]}]\nmodels: [{image: segment}]\n" + NODE
FIVE_FOLDS = (
    "roles: {CT: {Modality: [^CT$]}, PET: {Modality: [^PT$]}, MR: {Modality: [^MR$], series: 2}}\n"
    "close: {expect: [CT, PET, MR], seconds: 10, at_most: 1h, then: discard}\nmodels:\n"
    + "".join(
        f"  - {{name: fold{n}, image: fold, inputs: {{CT: /ct, PET: /pet, MR: /mr}}, outputs: {{fold{n}: /output}}}}\n"
        for n in range(5)
    )
    + "  - {name: mean, image: mean, inputs: {fold0: /a, fold1: /b, fold2: /c, fold3: /d, fold4: /e}}\n"
) + NODE
ADAPTIVE = (
    "roles:\n  planning: {Modality: [^CT$], SeriesDescription: ['^(?!CBCT)']}\n"
    "  daily: {Modality: [^CT$], SeriesDescription: [^CBCT$]}\n  registration: {Modality: [^REG$]}\n"
    "models:\n  - {image: deform, inputs: {planning: /planning, daily: /daily, registration: /registration}}\n"
) + NODE


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptEngine:
    made = ScriptEngine()
    for module in (running, step_graph):
        monkeypatch.setattr(module, "find_engine", lambda name="": made)
    monkeypatch.setattr(step_outputs, "run_dciodvfy", lambda *_: [])
    return made


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[object]:
    made: list[FlowDesk] = []

    def make(**flows: str) -> FlowDesk:
        made.append(FlowDesk(tmp_path / "station", flows))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


def series_of(folder: Path, modality: str, description: str = "") -> Path:
    """A file of another series in the study of `study_files`."""
    data = dcmread(study_files()[0])
    data.Modality, data.SeriesDescription = modality, description
    data.SeriesInstanceUID, data.SOPInstanceUID = generate_uid(), generate_uid()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path = folder / f"{data.SOPInstanceUID}.dcm"
    data.save_as(path)
    return path


def run_case(desk: FlowDesk) -> None:
    desk.use(QUIET)
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.worker().run_next() is True
    assert set(desk.states().values()) == {"done"}, case_of(desk.database, 1)


def queued(desk: FlowDesk) -> list[tuple[str, int]]:
    with DeliveryQueue(desk.station.deliveries) as queue:
        return [(row.destination, row.objects) for row in delivery_rows(queue) if row.state.value == "queued"]


def test_one_modality_is_segmented_and_sent_to_a_node(make_desk, engine: ScriptEngine) -> None:
    engine.scripts["segment"] = 'cp "$(ls -d "$INPUT"/* | head -1)" "$OUTPUT"'
    desk = make_desk(lungs=ONE_MODALITY)
    desk.put(*study_files())
    run_case(desk)
    assert queued(desk) == [("lungs: PACS@10.1.2.3:104", 1)]


def test_ct_pet_and_two_mr_of_four_associations_run_through_five_folds(
    make_desk, engine: ScriptEngine, tmp_path: Path
) -> None:
    engine.scripts["fold"] = 'test "$(ls "$MR" | wc -l)" = 2; test "$(ls "$PET" | wc -l)" = 1; cp "$PET"/* "$OUTPUT"'
    engine.scripts["mean"] = 'cmp "$A"/* "$B"/*; cmp "$D"/* "$E"/*; cp "$C"/* "$OUTPUT"'
    desk = make_desk(gtv=FIVE_FOLDS)
    series = [study_files(), *([series_of(tmp_path, modality)] for modality in ("PT", "MR", "MR"))]
    for association, files in enumerate(series, 1):
        desk.put(*files, association=association)
        desk.ended(association, "released")
    run_case(desk)
    assert sorted(engine.ran) == ["fold"] * 5 + ["mean"]
    assert queued(desk) == [("gtv: PACS@10.1.2.3:104", 1)]
    steps = desk.station.revision(1, 1) / "flows/gtv/steps"
    assert len({json.loads(path.read_text())["key"] for path in steps.glob("*/done.json")}) == 6


def test_planning_ct_cbct_and_registration_give_a_derived_series(
    make_desk, engine: ScriptEngine, tmp_path: Path
) -> None:
    derived = tmp_path / "derived"
    derived.mkdir()
    made = dcmread(series_of(tmp_path, "CT", "deformed to the day"))
    made.save_as(derived / "1.dcm")
    engine.scripts["deform"] = f'ls "$PLANNING"/* "$DAILY"/* "$REGISTRATION"/*; cp {derived}/* "$OUTPUT"'
    desk = make_desk(adapt=ADAPTIVE)
    desk.put(*study_files(), association=1)
    desk.put(series_of(tmp_path, "CT", "CBCT"), association=2)
    desk.put(series_of(tmp_path, "REG"), association=3)
    run_case(desk)
    assert queued(desk) == [("adapt: PACS@10.1.2.3:104", 1)]
    (sent,) = running.results_of(desk.station.revision(1, 1) / "flows/adapt")
    assert dcmread(sent).SeriesInstanceUID == made.SeriesInstanceUID
