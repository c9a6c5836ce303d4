"""The three use cases that RadDeploy published, as flows of a listener; tiny images of podman stand for the models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from tests.listener.test_case_flows import QUIET, FlowDesk
from tests.support.containers import make_image, own_podman
from tests.support.listeners import study_files

from ctenrich.containers.engines import find_engine
from ctenrich.delivery.decisions import delivery_rows
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.flows import running, step_graph
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
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make an image that runs a script."""
    for module in (running, step_graph):
        monkeypatch.setattr(module, "find_engine", lambda name="": find_engine("podman"))

    def make(name: str, script: str, files: dict[str, bytes] | None = None) -> None:
        model: dict[str, str | bytes] = {"bin/model": f"#!/bin/sh\nset -e\n{script}\n"}
        make_image(tmp_path, name, model | (files or {}), 'ENTRYPOINT ["/bin/model"]')

    with own_podman(tmp_path, monkeypatch):
        yield make


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


def test_one_modality_is_segmented_and_queued_for_a_node(make_desk, image: Callable[..., None]) -> None:
    image("segment", 'set -- /input/*; cp "$1" /output')
    desk = make_desk(lungs=ONE_MODALITY)
    desk.put(*study_files())
    run_case(desk)
    assert queued(desk) == [("lungs: PACS@10.1.2.3:104", 1)]


def test_ct_pet_and_two_mr_of_four_associations_run_through_five_folds(
    make_desk, image: Callable[..., None], tmp_path: Path
) -> None:
    image("fold", 'set -- /mr/*; test $# = 2; set -- /pet/*; test $# = 1; set -- /ct/*; cp "$1" /output')
    image("mean", 'set -- /a/*.dcm /b/*.dcm /c/*.dcm /d/*.dcm /e/*.dcm; test $# = 5; cp "$3" /output')
    desk = make_desk(gtv=FIVE_FOLDS)
    series = [study_files(), *([series_of(tmp_path, modality)] for modality in ("PT", "MR", "MR"))]
    for association, files in enumerate(series, 1):
        desk.put(*files, association=association)
        desk.ended(association, "released")
    run_case(desk)
    assert queued(desk) == [("gtv: PACS@10.1.2.3:104", 1)]
    steps = desk.station.revision(1, 1) / "flows/gtv/steps"
    done = [json.loads(path.read_text()) for path in steps.glob("*/done.json")]
    assert len({step["key"] for step in done}) == 6
    assert {step["engine"] for step in done} == {"podman"}


def test_planning_ct_cbct_and_registration_give_a_derived_series(
    make_desk, image: Callable[..., None], tmp_path: Path
) -> None:
    derived = series_of(tmp_path, "CT", "deformed to the day")
    script = f"set -- /planning/* /daily/* /registration/*; test $# = {len(study_files()) + 2}; cp /derived.dcm /output"
    image("deform", script, {"derived.dcm": derived.read_bytes()})
    desk = make_desk(adapt=ADAPTIVE)
    desk.put(*study_files(), association=1)
    desk.put(series_of(tmp_path, "CT", "CBCT"), association=2)
    desk.put(series_of(tmp_path, "REG"), association=3)
    run_case(desk)
    assert queued(desk) == [("adapt: PACS@10.1.2.3:104", 1)]
    (sent,) = running.results_of(desk.station.revision(1, 1) / "flows/adapt")
    assert dcmread(sent).SeriesInstanceUID == dcmread(derived).SeriesInstanceUID
