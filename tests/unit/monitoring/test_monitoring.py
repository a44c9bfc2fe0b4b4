"""The Grafana dashboard and the alert rules speak of metrics that exist, in words that Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagecached.telemetry import ClusterMetrics, ClusterReadings, Metrics, Readings

FOLDER = Path(__file__).resolve().parents[3] / "daemonset/monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
SCENARIOS = Path(__file__).parent / "alerts_test.yaml"

_NAME = re.compile(r"\b(?:imagecached|process)_[a-z_]+\b")
_SELECTOR = re.compile(r"((?:imagecached|process)_[a-z_]+)\{([^}]*)\}")
_BY = re.compile(r"by \(([^)]*)\)")
_SCRAPED = {"instance", "le"}  # what Prometheus adds


def samples() -> dict[str, set[str]]:
    """Name of every sample that a daemon or a controller exposes → the names of its labels."""
    daemon, controller = Metrics(), ClusterMetrics()
    daemon.watch(lambda: Readings(1, 1, 1, 1, 1, 1, caches={"Ready": 1}, connected=True))
    controller.watch(lambda: ClusterReadings(leading=True, caches={"Ready": 1}, nodes={"up": 1}))
    daemon.snapshot_call_ended("Prepare", "OK", 0.1)
    daemon.requested("get", "200")
    controller.requested("get", "200")
    controller.admitted("allowed", 0.1)
    found: dict[str, set[str]] = {}
    for source in (daemon, controller):
        for line in source.exposition()[0].decode().splitlines():
            if match := re.match(r"([a-z_]+)(?:\{(.*)\})? ", line):
                found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found


SAMPLES = samples()


def panels() -> Iterator[dict[str, Any]]:
    """Every panel that shows something."""
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_metrics_and_labels_exist(where: str, expression: str) -> None:
    """A renamed metric would leave an empty panel, or an alert that never fires."""
    names = set(_NAME.findall(expression))
    assert names, where
    assert names <= SAMPLES.keys(), where
    for name, selector in _SELECTOR.findall(expression):
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)) <= SAMPLES[name] | _SCRAPED, where
    labels = set().union(*(SAMPLES[name] for name in names)) | _SCRAPED
    for group in _BY.findall(expression):
        assert set(group.replace(" ", "").split(",")) <= labels, where


def test_label_values_exist() -> None:
    """Phases, results, reasons and sources are those that the daemon knows."""
    text = Metrics().exposition()[0].decode()
    values = dict.fromkeys(re.findall(r'(?:phase|result|reason|source)="(\w+)"', text))
    phases = {"Pending", "Creating", "Ready", "Failed", "Updating", "UpdateFailed"}
    for where, expression in expressions():
        for label, alternatives in re.findall(r'(phase|result|reason|source)[!=]~?"([\w|]+)"', expression):
            assert set(alternatives.split("|")) <= values.keys() | phases, (where, label)


def test_every_metric_of_the_daemon_is_shown() -> None:
    """Except those that only the cluster's parts have."""
    shown = {name for _, expression in expressions() for name in _NAME.findall(expression)}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in SAMPLES if name.startswith("imagecached_")}
    assert {name for name in known - bases if "cluster" not in name} == {"imagecached_gc_runs_total"}


def test_the_dashboard_can_be_imported() -> None:
    """Ids are unique, panels do not overlap, the data source is a variable, everything has a title."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= covered
        assert panel["title"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels())
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Prometheus' own opinion; skipped where it is not there."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool of the package prometheus: scripts/setup")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_prometheus_takes_the_rules() -> None:
    """``promtool check rules``."""
    done = promtool("check", "rules", FOLDER / "alerts.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{sum(len(group['rules']) for group in ALERTS['groups'])} rules found" in done.stdout


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """``promtool test rules`` over made-up series: what fires, and what does not."""
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    shutil.copy(SCENARIOS, tmp_path)
    done = promtool("test", "rules", tmp_path / SCENARIOS.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_dashboards_expressions(tmp_path: Path) -> None:
    """With Grafana's variables filled in, each is a rule that could be recorded."""
    rules = [
        {"record": f"panel:{number}", "expr": _filled(target["expr"])}
        for number, target in enumerate(target for panel in panels() for target in panel["targets"])
    ]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def _filled(expression: str) -> str:
    for variable, value in (("$__rate_interval", "5m"), ("$__range", "1h"), ("$instance", ".*")):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression
