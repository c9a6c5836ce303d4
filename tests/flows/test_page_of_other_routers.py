"""The flow and the station of the page for users of RadDeploy, mercure and MONAI Deploy can be read and fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.flows import case_files

from ctenrich.errors import UsageError
from ctenrich.flows.capacity import parse_capacity
from ctenrich.flows.reader import Machine, parse_flow
from ctenrich.flows.records import Flow
from ctenrich.flows.triggers import match_flow
from ctenrich.listener.config import StationConfig, load_config
from ctenrich.listener.flow_sending import check_for_listener, flow_destinations

PAGE = Path(__file__).parents[2] / "docs" / "from-other-routers.md"


@pytest.fixture
def config(tmp_path: Path) -> StationConfig:
    path = tmp_path / "station.toml"
    path.write_text(_block("toml"))
    return load_config(path)


def _block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def _flow(machine: Machine) -> Flow:
    return parse_flow(_block("yaml").encode(), Path("lungs.yaml"), machine)


def test_the_flow_is_read_without_a_note_and_fits_the_station(tmp_path: Path, config: StationConfig) -> None:
    (tmp_path / "weights").mkdir()
    capacity = parse_capacity(config.run.resources)
    flow = _flow(Machine(has_image=lambda _: True, gpus=capacity.gpus, cpus=capacity.cpus, static=str(tmp_path)))
    assert flow.notes == ()
    check_for_listener(flow, config)
    node, folder = flow_destinations(flow, config)
    assert (node.holds, folder.holds) == (True, False)
    with pytest.raises(UsageError, match="weights is not among the static files"):
        _flow(Machine(static=str(tmp_path / "none")))
    with pytest.raises(UsageError, match="not on this machine"):
        _flow(Machine(has_image=lambda _: False))


@pytest.mark.parametrize(
    ("description", "patient", "fires"),
    [("Thorax 1.5 B70f", "P1", True), ("Topogram thorax", "P1", False), ("Chest", "PHANTOM7", False)],
)
def test_what_the_flow_fires_on(description: str, patient: str, fires: bool) -> None:
    files = case_files({"Modality": "CT", "SeriesDescription": description, "PatientID": patient})
    assert match_flow(_flow(Machine()), files).fires is fires
