"""`voxray run`: starts Ray's head and the application; both stop with it."""

import contextlib
import ipaddress
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from rich.markup import escape

from serve_app.cli import DONE, FAILED, complain, console
from serve_app.cli.access import check_access
from serve_app.cli.config_file import settings, validated
from serve_app.cli.options import DEFAULT_SERVER
from serve_app.cli.ray_head import start_ray
from serve_app.cli.simulated import simulated, with_simulated
from serve_app.cli.stopping import TIMEOUT_S, Orders, drain
from serve_app.cli.supervisor import hold_signals, supervise
from serve_app.cluster.environment import CLUSTER, ONE_MACHINE, serve_environment
from serve_app.config import Config
from serve_app.config.sources import settings_in
from serve_app.extras import OTEL, S3, MissingExtra, check_driver, module_of
from serve_app.models.gpu_plan import DoesNotFit
from serve_app.models.weights import Absent, check_plan, ensure
from serve_app.observability.log_pipe import LOG_PIPE, PipeWriter, relayed
from serve_app.observability.logs import start_logging
from serve_app.observability.otlp import is_configured
from serve_app.security.keys import parse_keys

READY_S = 60
READY_IN_A_ROW = 5
"""While HAProxy is replaced, the old one, which knows no ingress, still accepts connections."""


def run_server(
    file: Path,
    host: str | None,
    port: int | None,
    profile: str | None,
    log_format: str | None = None,
    dashboard: bool = False,
    insecure: bool = False,
) -> int:
    """`log_format`: print the log lines of all replicas, in this form. `insecure`: also if other
    machines can reach it and need no key."""
    began = time.monotonic()
    os.umask(0o077)  # for what Ray and libraries write
    hold_signals()
    try:
        args, listen = settings(file, host, port, profile)
        missing = simulated(validated(file, args))
        args = with_simulated(args, missing)
        args["drain"] = {"timeout_s": TIMEOUT_S} | (args.get("drain") or {})
        if log_format:
            args["logging"] = {**(args.get("logging") or {}), "format": log_format}
        config = validated(file, args)
        check_plan(config)
        _check_secrets(config)
        _check_extras(config)
        if config.models.offline:
            for leaf in config.with_weights.values():
                ensure(config.models, leaf)
    except (ValueError, DoesNotFit, Absent, MissingExtra) as error:
        complain(f"{file}: {error}")
        return FAILED
    if taken := who_listens(*listen):
        complain(f"port {listen[1]} on {listen[0]} is in use by {taken}")
        return FAILED
    open_ = [] if is_loopback(listen[0]) else [listen[0]]
    if config.tcp.port and not is_loopback(config.tcp.host):
        open_.append(config.tcp.host)
    check_access(config, open_, insecure)
    if config.auth.mode == "keys":
        from serve_app.cli.keys import print_first_key

        print_first_key(config)
    for reason in missing.values():
        console.print(f"[yellow]warning: {escape(reason)}")
    console.print("starting; this takes about 20 to 40 s")
    environment = serve_environment(config, any_ports=True)
    os.environ.update(environment | ONE_MACHINE)
    try:
        with tempfile.TemporaryDirectory(prefix="voxray-logs-") as folder:
            if log_format:
                os.environ[LOG_PIPE] = str(Path(folder) / "lines")
            start = partial(_start, args, listen, dashboard, began)
            return supervise(partial(_serve, args, start, config.longest_drain_s))
    finally:
        shutil.rmtree(environment["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"], ignore_errors=True)


def _check_secrets(config: Config) -> None:
    """Raises `ValueError` for a configured secret that is missing or invalid."""
    from serve_app.identity.authenticator import check_keys
    from serve_app.jobs.storage_keys import keys_of
    from serve_app.jobs.webhooks.secret import secret_of

    check_keys(config.auth)
    keys_of(config.storage)
    secret_of(config.jobs.webhook)
    if config.resume.keys:
        parse_keys(config.resume.keys)


def _check_extras(config: Config) -> None:
    """Raises `MissingExtra` if the configuration needs a package that is not installed."""
    check_driver(config.storage.database_url)
    if "://" in config.storage.objects_url:
        module_of(S3)
    if is_configured(os.environ):
        module_of(OTEL)


def print_environment(file: Path, public: bool) -> None:
    args, _ = settings(file, None, None, None)
    environment = serve_environment(validated(file, args), public) | CLUSTER
    environment |= settings_in(os.environ)  # checked above
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def who_listens(host: str, port: int) -> str | None:
    """The process that uses the port, in words; None if the port is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return _owner(port) or f"something ({error.strerror})"
    return None


def _owner(port: int) -> str | None:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                return _describe(connection.pid) if connection.pid else None
    return None


def _describe(pid: int) -> str:
    process = psutil.Process(pid)
    what = " ".join(process.cmdline())[:80] or process.name()
    running = "a running voxray" if "haproxy" in process.name() else process.name()
    return f"{running} (pid {pid}: {what})"


def _serve(args: dict[str, Any], start: Callable[[], None], drain_s: float, pipe: int) -> int:
    """Serve until the supervisor says otherwise."""
    orders = Orders(pipe)
    with _logs_on_stdout(args):
        start()
        orders.started.set()
        orders.drain.wait()
        drain(orders.stop, drain_s)
        _shut_down()
    return DONE


@contextlib.contextmanager
def _logs_on_stdout(args: dict[str, Any]) -> Iterator[None]:
    """If that was asked for: the lines of all replicas, and this process's own."""
    if not (pipe := os.environ.get(LOG_PIPE)):
        yield
        return
    config = Config.model_validate(args).logging
    with relayed(Path(pipe), sys.stdout.fileno()):
        fixed = {"deployment": "voxray run"}
        start_logging(config.level, config.format, fixed, [PipeWriter(pipe)])
        yield


def _shut_down() -> None:
    import ray

    with contextlib.suppress(Exception):
        ray.shutdown()


def _start(args: dict[str, Any], listen: tuple[str, int], dashboard: bool, began: float) -> None:
    with console.status("starting Ray …"):
        at = start_ray(dashboard)
    ray_s = time.monotonic() - began
    with console.status("starting voxray …"):
        _start_application(args, listen)
    _announce(listen, at, time.monotonic() - began, ray_s)


def _announce(listen: tuple[str, int], dashboard: str | None, total_s: float, ray_s: float) -> None:
    host, port = listen
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    console.print(f"voxray is ready at [bold]{url}[/] ({total_s:.1f} s, {ray_s:.1f} of them Ray's)")
    also = f", Ray's dashboard http://{dashboard}" if dashboard else ""
    console.print(f"  API {url}/docs{also}")
    if (local := _local_url(*listen)) != DEFAULT_SERVER:
        console.print(f"  for the other commands: export VOXRAY_SERVER={local}")
    console.print("  Ctrl-C stops everything, once open sessions have ended or their time is over")


def _start_application(args: dict[str, Any], listen: tuple[str, int]) -> None:
    from ray import serve

    from serve_app.app import application
    from serve_app.replicas import APP_NAME

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": listen[0], "port": listen[1]})
    serve.run(application(Config.model_validate(args)), name=APP_NAME, route_prefix="/")
    _await_ready(*listen)


def _await_ready(host: str, port: int) -> None:
    """Until every new connection reaches an ingress replica whose lanes to the models are open."""
    deadline = time.monotonic() + READY_S
    in_a_row = 0
    while in_a_row < READY_IN_A_ROW:
        in_a_row = in_a_row + 1 if _is_ready(f"{_local_url(host, port)}/v1/ready") else 0
        if time.monotonic() > deadline:
            raise TimeoutError(f"the models were not ready within {READY_S} s")
        time.sleep(0.05)


def _local_url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on `host`."""
    reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reach}:{port}"


def _is_ready(url: str) -> bool:
    """Over a new connection, and never through a proxy."""
    import httpx2 as httpx

    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
