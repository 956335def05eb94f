"""Environment variables of Ray's head, workers and `serve run`, set before they start.

Serve reads them when it starts, so they cannot be in serve_config.yaml: `voxray run` sets them, and
`voxray env` prints them for `ray start` on a cluster.
"""

import contextlib
import math
import os
import resource
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from serve_app.cluster.front import Front, to_environment
from serve_app.config import Config

CLUSTER = {
    "RAY_AUTH_MODE": "token",  # `ray start` and `serve deploy` must agree on it
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "6",
    "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
}
"""What a cluster needs besides, so that it outlives its machines. Without its head, nodes and
replicas go on for 600 s: a head that keeps its state in Redis can return until then. A node that
is gone is found in 6 to 18 s, and a network that is away for 10 s costs none. HAProxy tries
another Ingress replica after one second."""

LANES_HOST = "VOXRAY_LANES_HOST"
"""Where lanes listen. `voxray run` sets loopback, because Ray takes the address that other machines
reach for a node's own, even on loopback."""


ONE_MACHINE = {
    LANES_HOST: "127.0.0.1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray's processes listen on every interface
    "RAY_event_stats": "0",  # times each of Ray's own events: 50 MB, and 5 % of what idling takes
    "RAY_raylet_report_resources_period_milliseconds": "1000",  # to itself
}
"""What `voxray run` sets besides `serve_environment`."""


REPLICA_S = 15.0
"""What Serve needs around a replica's own drain."""

NODE_S = 60.0
"""What a node's drain needs around that of its replicas: others are started elsewhere first."""

CLOSING_S = 60.0
"""For a session to be closed that has reached its longest time."""


def serve_environment(
    config: Config, public: bool = False, any_ports: bool = False, host: str = ""
) -> dict[str, str]:
    """Variables for Ray. `public`: HAProxy's own pages (statistics, metrics) can be reached from
    other machines. `host`: its address for clients, `http_options.host` of the Serve config unless
    given.

    `any_ports`: those pages get ports that the system picks, so that servers which start together
    on one machine do not pick the same.

    HAProxy is replaced whenever the set of replicas changes. The old process keeps its sockets
    and is killed after HARD_STOP, which must be longer than the longest session and its closing.

    `ray start --block` drains its node on SIGTERM: longer than its replicas drain.
    """
    folder = Path(tempfile.gettempdir()) / f"voxray-haproxy-{os.getuid()}-{os.getpid()}"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # not in batches of 1,000
        "RAY_SERVE_HAPROXY_BINARY_PATH": _our_haproxy(),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port(0 if any_ports else 8404)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port(0 if any_ports else 9101)),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_max_connections()),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": _seconds(
            config.max_session_s + config.limits.closing_timeout_s + CLOSING_S
        ),
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure 503",
        "RAY_SERVE_HAPROXY_RETRIES": "2",
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",  # a frozen replica cannot drain
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": _seconds(
            config.longest_drain_s + REPLICA_S + NODE_S
        ),
        "RAY_SERVE_PORT_QUARANTINE_S": "60",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "1",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        **to_environment(_front(config, public, host)),
    }


def _front(config: Config, public: bool, host: str) -> Front:
    tls, network = config.tls, config.network
    return Front(
        host=host,
        public=public,
        handshakes_per_s=config.admission.handshakes_per_s,
        connections_per_address=network.connections_per_address,
        handshakes_per_address=network.handshakes_per_address,
        certificate=tls.certificate,
        key=tls.key,
        client_ca=tls.client_ca,
        allow=network.allow,
        deny=network.deny,
        trusted_proxies=network.trusted_proxies,
        origins=config.browser.origins,
    )


def _seconds(seconds: float) -> str:
    return str(math.ceil(seconds))


def _our_haproxy() -> str:
    """The command next to this one, next to Python, or on PATH. Raises `FileNotFoundError`."""
    beside = (str(Path(program).parent) for program in (sys.argv[0], sys.executable))
    path = os.pathsep.join((*beside, os.environ.get("PATH", "")))
    if not (found := shutil.which("voxray-haproxy", path=path)):
        raise FileNotFoundError("the command voxray-haproxy is missing; reinstall voxray")
    return found


def _free_port(wanted: int) -> int:
    """The port, or any free one if it is taken, for example by another server."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port")


def _max_connections() -> int:
    """HAProxy needs 2.5 descriptors per connection and refuses to start with too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 20_000 if hard == resource.RLIM_INFINITY else min(20_000, hard // 3)
