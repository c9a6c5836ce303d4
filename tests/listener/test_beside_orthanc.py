"""The recipe of a listener beside Orthanc, as a research PACS: it forwards images, and gets the results back once."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import need_program
from tests.listener.test_listen import listener
from tests.publish.test_objects import free_port, program
from tests.support.listener_kills import SLICES
from tests.support.listeners import uid_of, wait_for

from ctenrich.delivery.decisions import delivery_totals
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.listener.cases import CaseState, cases_of
from ctenrich.listener.config import load_config
from ctenrich.listener.database import StationDatabase
from ctenrich.phantom import write_phantom_study

pytest.importorskip("pynetdicom")
RECIPES = Path(__file__).parents[2] / "docs" / "recipes" / "listener"


def test_the_two_halves_of_the_recipe_fit_each_other() -> None:
    orthanc = json.loads((RECIPES / "orthanc.json").read_text())
    station = load_config(RECIPES / "orthanc-station.toml")
    station.check()
    title, host, port = orthanc["DicomModalities"]["ctenrich"]
    assert (title, f"{host}:{port}") == (station.aet, station.dicom)
    assert station.peer(orthanc["DicomAet"], host) is not None
    assert station.destinations[0].address == f"dicom://{host}:{orthanc['DicomPort']}/{orthanc['DicomAet']}"
    assert "'/modalities/ctenrich/store'" in (RECIPES / Path(orthanc["LuaScripts"][0]).name).read_text()


@pytest.mark.long
def test_orthanc_forwards_a_study_and_has_its_results_once(tmp_path: Path) -> None:
    binary = need_program("orthanc", "Orthanc", "orthanc", "/usr/sbin/Orthanc")
    storescu = need_program("dcmtk", "storescu")
    dicom, pacs, http = free_port(), free_port(), free_port()
    settings = json.loads((RECIPES / "orthanc.json").read_text())
    settings |= {
        "DicomPort": pacs, "HttpPort": http, "StorageDirectory": str(tmp_path / "db"), "StableAge": 1,
        "DicomModalities": {"ctenrich": ["CTENRICH", "127.0.0.1", dicom]}, "AuthenticationEnabled": False,
        "LuaScripts": [str(RECIPES / Path(settings["LuaScripts"][0]).name)],
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    station = tmp_path / "station"
    station.mkdir()
    text = (RECIPES / "orthanc-station.toml").read_text()
    (station / "station.toml").write_text(
        text.replace("11112", str(dicom)).replace("4242", str(pacs)).replace("seconds = 60", "seconds = 3")
    )
    write_phantom_study(tmp_path / "dicom", SLICES)

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=10) as answer:
            return json.load(answer)

    with program([binary, str(tmp_path / "orthanc.json")], http), listener(station, dicom, "--segmenter", "expert"):
        environment = {**os.environ, "TCP_NODELAY": "1"}
        command = [storescu, "-R", "+sd", "+r", "-aec", "ORTHANC", "127.0.0.1", str(pacs), str(tmp_path / "dicom")]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        wait_for((station / "deliveries.sqlite").exists, 400)
        with DeliveryQueue(station / "deliveries.sqlite") as queue:
            wait_for(lambda: 0 < (found := delivery_totals(queue)).planned == found.sent, 60)
            sent = delivery_totals(queue).sent
        made = {uid_of(path) for path in (station / "cases").rglob("objects/*.dcm")}
        held = {ask(f"/instances/{one}/simplified-tags")["SOPInstanceUID"] for one in ask("/instances")}
        assert made <= held
        assert len(held) == len(list((tmp_path / "dicom").rglob("*.dcm"))) + len(made)
        wait_for(lambda: all(ask(f"/series/{one}")["IsStable"] for one in ask("/series")), 30)
        wait_for(lambda: not any(ask(f"/jobs/{one}")["State"] in ("Pending", "Running") for one in ask("/jobs")), 30)
        with StationDatabase(station / "station.sqlite", read_only=True) as database:
            rows = cases_of(database)
            associations = database.value("SELECT count(*) FROM associations")
    assert sent == len(made) > 0
    assert [(row.case, row.revision, row.state) for row in rows] == [(1, 1, CaseState.DONE)]
    assert associations == 2  # the CT series and the structure set, and no result
