"""Grafana's boards, as a table: `make docs` writes deploy/grafana/dashboards/*.json from it.

`rate` and `p` are over a minute; Prometheus must scrape at least every 15 seconds.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent.parent / "deploy/grafana/dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS, WIDTH, HEIGHT = 3, 8, 7


class Panel(NamedTuple):
    title: str
    unit: str
    """Grafana's name of it."""
    queries: dict[str, str]
    """Expressions by legend."""


def total(metric: str, by: str = "") -> str:
    return f"sum(ray_voxray_{metric})" + (f" by ({by})" if by else "")


def rate(metric: str, by: str = "") -> str:
    return f"sum(rate(ray_voxray_{metric}[1m]))" + (f" by ({by})" if by else "")


def p(share: float, metric: str, by: str = "", only: str = "") -> str:
    """The percentile of a histogram; `only`: of series with these labels."""
    labels = f"le, {by}" if by else "le"
    buckets = f"ray_voxray_{metric}_bucket{only}"
    return f"histogram_quantile({share}, sum(rate({buckets}[1m])) by ({labels}))"


def percentiles(metric: str) -> dict[str, str]:
    return {"p50": p(0.5, metric), "p95": p(0.95, metric), "p99": p(0.99, metric)}


LIVE = [
    Panel("Sessions", "short", {"open": total("sessions_active")}),
    Panel("Words after the end of an utterance", "s", percentiles("final_latency_seconds")),
    Panel("Quality level (0: all is well)", "short", {"level": "max(ray_voxray_quality_level)"}),
    Panel(
        "Sessions a second",
        "ops",
        {
            "opened": rate("sessions_total"),
            "refused": rate("sessions_refused_total"),
            "resumed": rate("sessions_resumed_total"),
        },
    ),
    Panel("Used of what sessions may fill", "percentunit", {
        "{{of}}": "max(ray_voxray_admission_used_share) by (of)"
    }),
    Panel("Audio received (1: one person)", "short", {"audio": rate("audio_seconds_total")}),
    Panel(
        "Left out a second",
        "ops",
        {
            "partials, quality level": rate("partials_withheld_total"),
            "partials, slow clients": rate("partials_dropped_total"),
            "audio sent again": rate("replays_total"),
        },
    ),
    Panel(
        "Utterances and words a second",
        "ops",
        {"utterances": rate("utterances_total"), "words": rate("words_total")},
    ),
    Panel("Errors a second", "ops", {"{{code}}": rate("errors_total", "code")}),
    Panel("Refused by limits a second", "ops", {"{{limit}}": rate("limited_total", "limit")}),
]  # fmt: skip

CONVERSATIONS = [
    Panel("Conversations", "short", {"open": total("conversations_active")}),
    Panel(
        "First sound after the end of speech",
        "s",
        {
            "p50": p(0.5, "turn_stage_seconds", only='{stage="total"}'),
            "p95": p(0.95, "turn_stage_seconds", only='{stage="total"}'),
        },
    ),
    Panel("Stages of a turn, p95", "s", {"{{stage}}": p(0.95, "turn_stage_seconds", "stage")}),
    Panel("Replies a second", "ops", {"{{status}}": rate("replies_total", "status")}),
    Panel(
        "Made a second",
        "ops",
        {
            "tokens": 'sum(rate(ray_voxray_model_output_total{deployment="Chat"}[1m]))',
            "samples": 'sum(rate(ray_voxray_model_output_total{deployment="Speaker"}[1m]))',
        },
    ),
    Panel(
        "Work on model replicas",
        "short",
        {"{{deployment}}": total("model_sessions", "deployment")},
    ),
    Panel("Used a second", "short", {"{{tenant}}: {{kind}}": rate("usage_total", "tenant, kind")}),
    Panel("Use that is not stored", "s", {"oldest": "max(ray_voxray_usage_unwritten_seconds)"}),
    Panel("Opened a second", "ops", {"conversations": rate("conversations_total")}),
    Panel(
        "Histories not stored a second", "ops", {"histories": rate("histories_not_written_total")}
    ),
]

JOBS = [
    Panel("Jobs", "short", {"{{state}}": "max(ray_voxray_jobs) by (state)"}),
    Panel("Longest wait", "s", {"oldest": "max(ray_voxray_jobs_oldest_seconds)"}),
    Panel("From start to end", "s", percentiles("job_duration_seconds")),
    Panel("Ended a minute", "short", {"{{state}}": f"60 * {rate('jobs_ended_total', 'state')}"}),
    Panel(
        "Tried again a minute",
        "short",
        {"{{code}}": f"60 * {rate('jobs_retried_total', 'code')} or vector(0)"},
    ),
    Panel("Workers", "short", {"replicas": total('replicas{deployment="Worker"}')}),
]

CLUSTER = [
    Panel("Replicas", "short", {"{{deployment}}": total("replicas", "deployment")}),
    Panel("Lanes", "short", {"{{deployment}}": total("lanes", "deployment")}),
    Panel(
        "Lanes lost a minute",
        "short",
        {"{{deployment}}": f"60 * {rate('lanes_lost_total', 'deployment')}"},
    ),
    Panel("Requests a second", "reqps", {"{{status}}": rate("http_requests_total", "status")}),
    Panel(
        "Requests, p95",
        "s",
        {"{{route}}": p(0.95, "http_request_duration_seconds", "route")},
    ),
    Panel(
        "Connections and drains",
        "short",
        {"connections": total("connections_active"), "replicas that drain": total("draining")},
    ),
    Panel("Processor by machine", "percent", {
        "{{ip}}": "max(ray_node_cpu_utilization) by (ip)"
    }),
    Panel("Memory by machine", "percentunit", {
        "{{ip}}": "max(ray_node_mem_used / ray_node_mem_total) by (ip)"
    }),
    Panel("GPU memory by machine", "percentunit", {
        "{{ip}} {{GpuIndex}}": "max(ray_node_gram_used / (ray_node_gram_used + "
        "ray_node_gram_available)) by (ip, GpuIndex) or vector(0)"
    }),
    Panel("Disk by machine", "percent", {
        "{{ip}}": "max(ray_node_disk_utilization_percentage) by (ip)"
    }),
    Panel("Memory by deployment", "bytes", {
        "{{Component}}": 'sum(ray_component_uss_bytes{Component=~"ray::ServeReplica:.*"}) '
        "by (Component)"
    }),
    Panel("Machines that Prometheus reaches", "short", {"up": "sum(up)"}),
]  # fmt: skip

ACCESS = [
    Panel(
        "Logins refused a minute",
        "short",
        {"{{reason}}": f"60 * {rate('logins_refused_total', 'reason')}"},
    ),
    Panel("Limits not shared", "short", {"replicas": total("limits_unshared")}),
    Panel("Audit entries lost", "short", {"entries": total("audit_entries_lost_total")}),
    Panel(
        "Certificate is valid for",
        "s",
        {"left": "min(ray_voxray_certificate_expires_timestamp_seconds) - time()"},
    ),
]

BOARDS = {
    "access": ACCESS,
    "live": LIVE,
    "conversations": CONVERSATIONS,
    "jobs": JOBS,
    "cluster": CLUSTER,
}


def board(name: str) -> dict[str, Any]:
    """In Grafana's form."""
    return {
        "uid": f"voxray-{name}",
        "title": f"voxray: {name}",
        "tags": ["voxray"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "links": [
            {"type": "dashboards", "tags": ["voxray"], "title": "voxray", "asDropdown": False}
        ],
        "panels": [_panel(number, it) for number, it in enumerate(BOARDS[name])],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression, "legendFormat": legend}
            for at, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def rendered(name: str) -> str:
    return json.dumps(board(name), indent=1) + "\n"


def write_boards() -> None:
    for name in BOARDS:
        (FOLDER / f"{name}.json").write_text(rendered(name))
