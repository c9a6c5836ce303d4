"""The dashboard, the alerts and the unit fit the program: metrics, commands and options that they name exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.delivery.records import DeliveryState
from ctenrich.listener.cases import CaseState
from ctenrich.listener.metrics import METRICS

yaml = pytest.importorskip("yaml")
RECIPES = Path(__file__).parents[2] / "docs" / "recipes" / "listener"
LABELS = {
    "ctenrich_received_total": "result",
    "ctenrich_refused_total": "reason",
    "ctenrich_associations_total": "ending",
    "ctenrich_cases": "state",
    "ctenrich_watch_files": "state",
    "ctenrich_deliveries": "state",
    "ctenrich_deliveries_confirmed": "answer",
    "ctenrich_destination_failures": "destination",
    "ctenrich_notifications": "state",
}


def named(text: str) -> set[str]:
    """Metrics that an expression names."""
    return set(re.findall(r"\bctenrich_\w+", text))


def test_the_dashboard_shows_every_metric_by_its_label() -> None:
    board = json.loads((RECIPES / "grafana-dashboard.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    assert set().union(*(named(target["expr"]) for target in targets)) == set(METRICS)
    for target in targets:
        for metric in named(target["expr"]):
            legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert legend == ([LABELS[metric]] if metric in LABELS else [])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_counters_are_shown_as_rates_and_gauges_are_not() -> None:
    board = json.loads((RECIPES / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            for metric in named(target["expr"]):
                assert (METRICS[metric][0] == "counter") == (f"rate({metric}" in target["expr"])


def test_alerts_name_metrics_and_states_that_exist() -> None:
    alerts = yaml.safe_load((RECIPES / "alerts.yml").read_text())
    for rule in alerts["groups"][0]["rules"]:
        assert named(rule["expr"]) <= set(METRICS)
        assert set(re.findall(r'state="(\w+)"', rule["expr"])) <= {*CaseState, *DeliveryState}


def options_of(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_the_unit_and_the_composition_start_the_listener() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((RECIPES / "ctenrich-listen.service").read_text())
    words = shlex.split(unit["Service"]["ExecStart"])
    composed = yaml.safe_load((RECIPES / "compose.yaml").read_text())["services"]
    assert words[1] == composed["listener"]["command"][0] == "listen"
    known = CliRunner().invoke(app, ["listen", "--help"], env={"COLUMNS": "200"}).output
    for option in options_of(words) | options_of(composed["listener"]["command"]):
        assert option in known
    assert unit["Service"]["SuccessExitStatus"] == "3"
    assert int(unit["Service"]["TimeoutStopSec"]) > 10
    mounted = [volume.split(":")[0] for service in composed.values() for volume in service["volumes"]]
    for name in (Path(volume) for volume in mounted if volume.startswith("./")):
        assert (RECIPES / name).is_file()


def test_the_composition_connects_its_programs() -> None:
    composed = yaml.safe_load((RECIPES / "compose.yaml").read_text())["services"]
    command = composed["listener"]["command"]
    web = command[command.index("--web") + 1]
    prometheus = yaml.safe_load((RECIPES / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": [web]}]
    mounts = dict(volume.split(":")[:2] for volume in composed["prometheus"]["volumes"])
    folder = Path(mounts["./prometheus.yml"]).parent
    assert [str(folder / name) for name in prometheus["rule_files"]] == [mounts["./alerts.yml"]]
    address = next(word for word in composed["prometheus"]["command"] if word.startswith("--web.listen-address="))
    source = yaml.safe_load((RECIPES / "grafana-datasource.yml").read_text())["datasources"][0]
    assert source["url"] == f"http://{address.partition('=')[2]}"
    provided = yaml.safe_load((RECIPES / "grafana-provisioning.yml").read_text())["providers"][0]["options"]["path"]
    mounts = dict(volume.split(":")[:2] for volume in composed["grafana"]["volumes"])
    assert Path(mounts["./grafana-dashboard.json"]).parent == Path(provided)
    assert int(composed["listener"]["stop_grace_period"].removesuffix("s")) > 10


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "ctenrich-listen.service"
    unit.write_text((RECIPES / unit.name).read_text().replace("/opt/ctenrich/bin/ctenrich", sys.executable))
    done = subprocess.run([program, "verify", str(unit)], check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
