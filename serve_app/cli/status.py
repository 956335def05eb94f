"""`voxray status`: sessions, deployments and replicas."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import httpx2 as httpx
from rich.console import Console
from rich.table import Table

from serve_app.cli.rest import Rest, is_loopback


def show_status(server: str, dashboard: str, as_json: bool) -> None:
    rest = Rest(server)
    health = rest.ask("GET", "/v1/health").json()
    metrics = rest.ask("GET", "/v1/metrics").json()
    deployments = _deployments(dashboard)
    if as_json:
        print(json.dumps({"health": health, "metrics": metrics, "deployments": deployments}))
        return
    console = Console(highlight=False)
    console.print(
        f"{server}: [bold]{health['status']}[/], engine {health['engine']}, "
        f"{health['active_sessions']} open sessions, {metrics['live']['total_sessions']} in total, "
        f"{metrics['total_requests']} requests"
    )
    console.print(_table(deployments) if deployments else f"(no Ray dashboard at {dashboard})")


def _deployments(dashboard: str) -> list[dict[str, Any]]:
    """From the API of Ray's dashboard, which listens on the server's own machine only."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    headers = {}
    with contextlib.suppress(OSError):
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
    try:
        answer = httpx.get(
            f"{dashboard}/api/serve/applications/",
            headers=headers,
            timeout=5,
            trust_env=not is_loopback(dashboard),
        )
        applications = answer.raise_for_status().json()["applications"]
    except (httpx.HTTPError, ValueError, KeyError):
        return []
    return [
        {
            "name": name,
            "status": deployment["status"],
            "replicas": [
                {"id": replica["replica_id"], "state": replica["state"], "pid": replica["pid"]}
                for replica in deployment["replicas"]
            ],
        }
        for application in applications.values()
        for name, deployment in application["deployments"].items()
    ]


def _table(deployments: list[dict[str, Any]]) -> Table:
    table = Table("deployment", "status", "replicas", "pids")
    for deployment in deployments:
        replicas = deployment["replicas"]
        pids = ", ".join(str(replica["pid"]) for replica in replicas)
        table.add_row(deployment["name"], deployment["status"], str(len(replicas)), pids)
    return table
