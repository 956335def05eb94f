"""Ray's head for `voxray run`: one machine, without the processes that nothing there asks."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve_app.cli.supervisor import ignore_signals
from serve_app.security.owner_only import tighten

OBJECT_STORE_BYTES = 200_000_000

UNUSED = ("start_log_monitor", "start_monitor")
"""One sends logs to drivers, which show none; the other asks a cloud for machines."""

DISCOVERY = "prom_metrics_service_discovery.json"

DASHBOARD = "start_api_server"
"""The dashboard's eleven processes."""


def start_ray(dashboard: bool) -> str | None:
    """Starts a head on this machine and returns the address of its dashboard, if it has one."""
    import ray

    here = os.getcwd()  # own engines are imported from here, by this process, too
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with _without(*UNUSED, *([] if dashboard else [DASHBOARD])):
        context: Any = ray.init(
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    session = Path(context.address_info["session_dir"])
    session.chmod(0o700)  # Ray lets everybody write there
    tighten([_token_file()])  # an older Ray may have made it for everybody
    ignore_signals()  # again, because Ray has replaced the handlers
    if not dashboard:
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        _tell_prometheus(nodes, session.parent)
    return context.dashboard_url or None


def _token_file() -> Path:
    """With it, all of Ray's ports can be used."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


@contextlib.contextmanager
def _without(*steps: str) -> Iterator[None]:
    """Ray has options for these only in `ray start`."""
    from ray._private.node import Node

    kept = {step: getattr(Node, step) for step in steps}
    for step in steps:
        setattr(Node, step, _nothing)
    try:
        yield
    finally:
        for step, method in kept.items():
            setattr(Node, step, method)


def _tell_prometheus(nodes: list[dict[str, Any]], folder: Path) -> None:
    """Where metrics are, in the file in which the dashboard keeps that."""
    targets = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes]
    content = json.dumps([{"labels": {"job": "ray"}, "targets": targets}])
    new = folder / f"{DISCOVERY}.new"
    new.write_text(content)
    new.chmod(0o644)  # another user runs Prometheus
    new.replace(folder / DISCOVERY)


def _nothing(*_: Any, **__: Any) -> None:
    pass
