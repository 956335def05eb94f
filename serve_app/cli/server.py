"""`voxray run`: Ray's head and the application in one go, and nothing left behind."""

import contextlib
import ipaddress
import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import yaml
from pydantic import ValidationError

from serve_app.cli import DONE, FAILED, complain, console
from serve_app.config import Config
from serve_app.environment import serve_environment
from serve_app.extras import S3, MissingExtra, module_of
from serve_app.placement import DoesNotFit
from serve_app.weights import Absent, check_plan, ensure

OBJECT_STORE_BYTES = 200_000_000
STOP_PATIENCE_S = 10.0


def run_server(file: Path, host: str | None, port: int | None, profile: str | None) -> int:
    began = time.monotonic()
    try:
        args, listen = settings(file, host, port, profile)
        config = Config.model_validate(args)
        check_plan(config)
        _check_secrets(config)
        _check_extras(config)
        if config.models.offline:
            for leaf in config.weighty.values():
                ensure(config.models, leaf)
    except (ValidationError, ValueError, DoesNotFit, Absent, MissingExtra) as error:
        complain(f"{file}: {error}")
        return FAILED
    if taken := who_listens(*listen):
        complain(f"port {listen[1]} on {listen[0]} is taken by {taken}")
        return FAILED
    public = not is_loopback(listen[0])
    open_ = [listen[0]] if public else []
    if config.tcp.port and not is_loopback(config.tcp.host):
        open_.append(config.tcp.host)
    for host_ in open_:
        console.print(
            f"[yellow]warning: {host_} can be reached from other machines, and there are no "
            "keys yet: anyone who reaches it can use it"
        )
    os.environ.update(serve_environment(public, config.max_session_s))
    return _serve_until_told(args, listen, began)


def _check_secrets(config: Config) -> None:
    """Raises `ValueError` for one that is wanted and not there, or is none."""
    from serve_app.jobs.objects import key_of
    from serve_app.jobs.webhooks import secret_of

    key_of(config.storage)
    secret_of(config.jobs.webhook)


def _check_extras(config: Config) -> None:
    """Raises `MissingExtra` where the configuration needs a package that is not installed."""
    from serve_app.jobs.database import check_driver

    check_driver(config.storage.database_url)
    if "://" in config.storage.objects_url:
        module_of(S3)


def print_environment(file: Path, public: bool) -> None:
    args, _ = settings(file, None, None, None)
    for name, value in serve_environment(public, Config.model_validate(args).max_session_s).items():
        print(f"export {name}={shlex.quote(value)}")
    print("export RAY_AUTH_MODE=token")  # `ray start` and `serve deploy` must agree on it


def settings(
    file: Path, host: str | None, port: int | None, profile: str | None
) -> tuple[dict[str, Any], tuple[str, int]]:
    """The application's args and the address, from the Serve file and what overrides it."""
    deploy = yaml.safe_load(file.read_text())
    args: dict[str, Any] = deploy["applications"][0].get("args") or {}
    if profile:
        args["profile"] = profile
    http = deploy.get("http_options", {})
    return args, (host or http.get("host", "127.0.0.1"), port or http.get("port", 8000))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def who_listens(host: str, port: int) -> str | None:
    """Who has the port, in words; None if nobody."""
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


def _serve_until_told(args: dict[str, Any], listen: tuple[str, int], began: float) -> int:
    told = threading.Event()

    def tell(_: int, __: FrameType | None) -> None:
        told.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, tell)
    signal.signal(signal.SIGTERM, tell)
    outcome = DONE
    try:
        _start(args, listen, began)
        while not told.wait(3600):
            continue
    except KeyboardInterrupt:
        pass
    except Exception as error:  # the outermost edge: say it plainly, stop what was started
        complain(f"could not start: {error}")
        outcome = FAILED
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _stop()
    return outcome


def _start(args: dict[str, Any], listen: tuple[str, int], began: float) -> None:
    with console.status("starting Ray …"):
        dashboard = _start_ray()
    ray_s = time.monotonic() - began
    with console.status("starting voxray …"):
        _start_application(args, listen)
    host, port = listen
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    total_s = time.monotonic() - began
    console.print(f"voxray is ready at [bold]{url}[/] ({total_s:.1f} s, {ray_s:.1f} of them Ray's)")
    console.print(f"  API {url}/docs, Ray's dashboard http://{dashboard}")
    console.print("  Ctrl-C stops everything")


def _start_ray() -> str:
    """A head on this machine; the address of its dashboard."""
    import ray

    path = [os.getcwd(), os.environ.get("PYTHONPATH")]  # engines of one's own live here
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    context = ray.init(
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        _node_ip_address="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return str(context.dashboard_url)


def _start_application(args: dict[str, Any], listen: tuple[str, int]) -> None:
    from ray import serve

    from serve_app.app import APP_NAME, build

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": listen[0], "port": listen[1]})
    serve.run(build(args), name=APP_NAME, route_prefix="/")
    _await_ready(*listen)


def _await_ready(host: str, port: int) -> None:
    """Until the lanes to the models are open."""
    import httpx2 as httpx

    deadline = time.monotonic() + 60
    reach = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://{reach}:{port}/v1/ready", timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise TimeoutError("the models were not ready within 60 s")


def _stop() -> None:
    """Ray takes its processes down with it; whatever is left of our descendants is killed."""
    console.print("stopping …")
    ours = psutil.Process().children(recursive=True)
    if "ray" in sys.modules:
        import ray

        with contextlib.suppress(Exception):
            ray.shutdown()
    _, alive = psutil.wait_procs(ours, timeout=STOP_PATIENCE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    place = os.environ.get("RAY_SERVE_HAPROXY_SERVER_STATE_BASE")
    if place:
        shutil.rmtree(place, ignore_errors=True)
