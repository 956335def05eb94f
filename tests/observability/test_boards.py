"""Boards, alerts and the operations page name what there is."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from docs.boards import BOARDS, FOLDER, rendered
from serve_app.observability.table import TABLE, Kind

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy/prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
OF_BOARDS = {
    f"{name}: {panel.title}: {legend}": expression
    for name, board in BOARDS.items()
    for panel in board
    for legend, expression in panel.queries.items()
}
OF_ALERTS = {rule["alert"]: rule["expr"] for rule in ALERTS}


def ours() -> set[str]:
    """Every series of the table, as Prometheus names it."""
    names = set()
    for metric in TABLE:
        parts = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        names |= {f"ray_{metric.name}{part}" for part in parts}
    return names


def rays() -> set[str]:
    """What Ray says of machines."""
    from ray.dashboard.modules.reporter import reporter_agent

    return {f"ray_{name}" for name in reporter_agent.METRICS_GAUGES}


def labels_of(name: str) -> set[str]:
    base = re.sub("_(bucket|sum|count)$", "", name.removeprefix("ray_"))
    known = {it.name: it.labels for it in TABLE}
    return {*known.get(base, known.get(name.removeprefix("ray_"), ())), "source", "replica"}


@pytest.mark.parametrize("expression", [*OF_BOARDS.values(), *OF_ALERTS.values()])
def test_an_expression_names_metrics_that_exist(expression: str) -> None:
    named = set(re.findall(r"ray_\w+", re.sub(r'"[^"]*"', "", expression)))
    assert named or "up" in expression
    assert named <= ours() | rays()
    for name in (it for it in named if it.startswith("ray_voxray")):
        for by in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(by.split(", ")) <= labels_of(name) | {"le"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_current_and_small(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text()
    assert text == rendered(name), "run `make docs`"
    assert len(text) < 10_000
    panels = json.loads(text)["panels"]
    assert len({(it["gridPos"]["x"], it["gridPos"]["y"]) for it in panels}) == len(panels)


def test_every_metric_is_on_a_board_or_in_an_alert() -> None:
    shown = " ".join([*OF_BOARDS.values(), *OF_ALERTS.values()])
    unseen = {it.name for it in TABLE if f"ray_{it.name}" not in shown}
    assert unseen <= {
        "voxray_http_requests_per_second",  # Prometheus has rates
        "voxray_quality_level_changes_total",
        "voxray_admission_session_share",
    }


def test_symptoms_name_metrics_and_alerts_that_exist() -> None:
    symptoms = re.findall(r"^## \d+\. ", OPERATIONS, re.M)
    assert len(symptoms) >= 10
    metrics = {f"ray_{it.name}" for it in TABLE} | rays()
    named = set(re.findall(r"\b(?:ray_)?voxray_[a-z_]+\b|\bray_[a-z_]+\b", OPERATIONS))
    assert named and {f"ray_{it.removeprefix('ray_')}" for it in named} <= metrics
    assert set(re.findall(r"\bVoxray[A-Z]\w+", OPERATIONS)) == set(OF_ALERTS)


@pytest.mark.skipif(not shutil.which("promtool"), reason="prometheus is not installed")
def test_promtool_accepts_the_files() -> None:
    checks = (("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"))
    for *command, file in checks:
        done = subprocess.run(["promtool", *command, str(PROMETHEUS / file)], capture_output=True)
        assert done.returncode == 0, done.stderr
