"""What `voxray run` does about Ray's head, without starting it."""

import json
from pathlib import Path

from serve_app.cli.ray_head import DISCOVERY, _tell_prometheus


def test_prometheus_finds_the_metrics_where_the_dashboard_would_say_so(tmp_path: Path) -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    assert DISCOVERY == PROMETHEUS_SERVICE_DISCOVERY_FILE
    (tmp_path / DISCOVERY).write_text("of another server")
    _tell_prometheus([{"NodeManagerAddress": "10.0.0.1", "MetricsExportPort": 9000}], tmp_path)
    (found,) = json.loads((tmp_path / DISCOVERY).read_text())
    assert found == {"labels": {"job": "ray"}, "targets": ["10.0.0.1:9000"]}
    assert [it.name for it in tmp_path.iterdir()] == [DISCOVERY]
