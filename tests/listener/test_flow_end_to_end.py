"""From storescu through a container of podman to storescp: what passes the inspection is delivered, nothing else."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.conftest import need_program
from tests.listener.test_listen import listener, storescu
from tests.publish.test_objects import free_port, program
from tests.support.cohorts import TINY
from tests.support.containers import make_image, own_podman
from tests.support.listeners import uid_of, wait_for

from ctenrich import steps
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.listener.cases import cases_of
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import flow_rows
from ctenrich.phantom import write_phantom_study

pytestmark = pytest.mark.long
pytest.importorskip("pynetdicom")
MODEL = "#!/bin/sh\nset -e\nset -- /input/*.dcm\ntest $# = 16\ncp /results/* /output/\n"
FLOW = """
triggers: [{{Modality: [^CT$]}}]
models:
  - {{image: model, command: /bin/model, contract: raddeploy, static_mounts: {{{static}: /results}}, timeout: 5m}}
destinations:
  - {{host: 127.0.0.1, port: {port}, ae_title: PACS, hold: false}}
  - {{name: clinic, host: 127.0.0.1, port: {port}, ae_title: CLINIC}}
"""


def results_of_the_study(folder: Path, study: Path) -> Path:
    """The structure set of a study, and the SEG and SR that ctenrich makes of its contours."""
    steps.index([study], folder / "catalog.duckdb")
    cohort = folder / "cohort.parquet"
    steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", cohort)
    assert steps.run_all(steps.start(cohort, folder / "run", segmenters=["expert"])).exit_code == 0
    made = folder / "results"
    made.mkdir(parents=True)
    contours = [path for path in study.rglob("*.dcm") if dcmread(path, stop_before_pixels=True).Modality == "RTSTRUCT"]
    for path in [*contours, *(folder / "run" / "series").glob("*/*/objects/*.dcm")]:
        shutil.copy(path, made)
        path.unlink()
    return made


def test_objects_of_a_container_reach_a_node_and_those_of_another_patient_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, static = tmp_path / "dicom", tmp_path / "static"
    write_phantom_study(study, TINY)
    made = results_of_the_study(tmp_path / "own", study)
    shutil.copytree(made, static / "good")
    write_phantom_study(tmp_path / "other", replace(TINY, seed=TINY.seed + 1))
    shutil.copytree(results_of_the_study(tmp_path / "foreign", tmp_path / "other"), static / "foreign")
    kinds = Counter(dcmread(path, stop_before_pixels=True).Modality for path in made.iterdir())
    assert set(kinds) == {"RTSTRUCT", "SEG", "SR"}
    station, port, pacs, inbox = tmp_path / "station", free_port(), free_port(), tmp_path / "in"
    flows = tmp_path / "flows"
    for folder in (station, flows, inbox):
        folder.mkdir()
    (station / "station.toml").write_text(f'[run]\nengine = "podman"\nstatic = "{static}"\n')
    for name in ("good", "foreign"):
        (flows / f"{name}.yaml").write_text(FLOW.format(static=name, port=pacs))
    options = ("--peer", "STORESCU@127.0.0.1", "--close", "quiet:1s", "--flows", str(flows))
    storescp = [need_program("dcmtk", "storescp"), "-od", str(inbox), "-aet", "PACS", str(pacs)]
    with own_podman(tmp_path, monkeypatch):
        image = make_image(tmp_path, "model", {"bin/model": MODEL})
        with program(storescp, pacs), listener(station, port, *options):
            storescu(port, study)
            with StationDatabase(station / "station.sqlite", read_only=True) as database:
                (row,) = wait_for(lambda: [row for row in cases_of(database) if row.ended], 300)
                ended = {row.flow: (row.state.value, row.reason) for row in flow_rows(database, 1, 1)}
            assert ended == {"good": ("done", ""), "foreign": ("failed", "FOREIGN_OBJECT")}, row
            with DeliveryQueue(station / "deliveries.sqlite") as queue:
                rows = wait_for(lambda: _delivered(queue, 2 * len(list(made.iterdir()))), 60)
    assert rows == {"good: PACS@127.0.0.1:" + str(pacs): {"sent"}, "good: clinic": {"held"}}
    expected = {uid_of(path): path for path in made.iterdir()}
    got = {uid_of(path): path for path in inbox.iterdir()}
    assert got.keys() == expected.keys()
    for uid, path in got.items():
        assert dcmread(path).to_json() == dcmread(expected[uid]).to_json()
    done = json.loads((station / "cases/000001/r1/flows/good/steps/step1/done.json").read_text())
    assert (done["engine"], done["contract"]) == ("podman", "raddeploy")
    assert image.endswith(done["image_id"].removeprefix("sha256:"))


def _delivered(queue: DeliveryQueue, number: int) -> dict[str, set[str]] | None:
    """Destination -> states of its objects, once all have ended or are held."""
    found = queue.database.rows("SELECT destination, state FROM objects WHERE state IN ('sent', 'held')")
    states: dict[str, set[str]] = {}
    for row in found:
        states.setdefault(row["destination"], set()).add(row["state"])
    return states if len(found) == number else None
