"""`voxray run`: starts Ray's head and the application; both stop with it."""

import contextlib
import logging
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from serve_app.cli import DONE, FAILED, complain, console
from serve_app.cli.access import check_access
from serve_app.cli.certificate import checked_certificate, how_to_trust, own_certificate
from serve_app.cli.config_file import settings, validated
from serve_app.cli.listen_address import ListenAddress, is_loopback
from serve_app.cli.options import DEFAULT_SERVER
from serve_app.cli.ray_head import start_ray
from serve_app.cli.simulated import simulated, with_simulated
from serve_app.cli.stopping import TIMEOUT_S, Orders, drain
from serve_app.cli.supervisor import hold_signals, supervise
from serve_app.cluster.environment import CLUSTER, ONE_MACHINE, serve_environment
from serve_app.config import Config
from serve_app.config.sources import settings_in
from serve_app.extras import OTEL, REDIS, S3, MissingExtra, check_driver, module_of
from serve_app.models.gpu_plan import DoesNotFit
from serve_app.models.weights import Absent, check_plan, ensure
from serve_app.observability.log_pipe import LOG_PIPE, PipeWriter, relayed
from serve_app.observability.logs import start_logging
from serve_app.observability.otlp import is_configured
from serve_app.security.certificates import WrongCertificate
from serve_app.security.keys import parse_keys

LOOPBACK = "127.0.0.1"


def run_server(
    file: Path,
    host: str | None,
    port: int | None,
    profile: str | None,
    log_format: str | None = None,
    dashboard: bool = False,
    insecure: bool = False,
    self_signed: bool = False,
) -> int:
    """`log_format`: print the log lines of all replicas, in this form. `insecure`: also if other
    machines can reach it and need no key. `self_signed`: TLS with a certificate of our own."""
    began = time.monotonic()
    os.umask(0o077)  # for what Ray and libraries write
    hold_signals()
    try:
        args, (host, port) = settings(file, host, port, profile)
        missing = simulated(validated(file, args))
        args = with_simulated(args, missing)
        args["drain"] = {"timeout_s": TIMEOUT_S} | (args.get("drain") or {})
        if log_format:
            args["logging"] = {**(args.get("logging") or {}), "format": log_format}
        config = validated(file, args)
        if self_signed:
            args["tls"] = own_certificate(config, host)
            config = validated(file, args)
        certificate = checked_certificate(config.tls)
        check_plan(config)
        _check_secrets(config)
        _check_extras(config)
        if config.models.offline:
            for leaf in config.with_weights.values():
                ensure(config.models, leaf)
    except (ValueError, DoesNotFit, Absent, MissingExtra, WrongCertificate) as error:
        complain(f"{file}: {error}")
        return FAILED
    listen = ListenAddress(host, port, bool(certificate))
    if obstacle := listen.obstacle():
        complain(obstacle)
        return FAILED
    open_ = [] if is_loopback(host) else [host]
    if config.tcp.port and not is_loopback(config.tcp.host):
        open_.append(config.tcp.host)
    check_access(config, open_, insecure)
    if config.auth.mode == "keys":
        from serve_app.cli.keys import print_first_key

        print_first_key(config)
    for reason in missing.values():
        console.print(f"[yellow]warning: {escape(reason)}")
    console.print("starting; this takes about 20 to 40 s")
    environment = serve_environment(config, any_ports=True, host=host)
    os.environ.update(environment | ONE_MACHINE)
    try:
        with tempfile.TemporaryDirectory(prefix="voxray-logs-") as folder:
            if log_format:
                os.environ[LOG_PIPE] = str(Path(folder) / "lines")
            told = how_to_trust(config.tls, certificate) if self_signed and certificate else ()
            start = partial(_start, args, listen, dashboard, began, told)
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
    if config.storage.redis_url:
        module_of(REDIS)
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


def _start(
    args: dict[str, Any], listen: ListenAddress, dashboard: bool, began: float, told: Sequence[str]
) -> None:
    with console.status("starting Ray …"):
        at = start_ray(dashboard)
    ray_s = time.monotonic() - began
    with console.status("starting voxray …"):
        _start_application(args, listen)
    _announce(listen, at, time.monotonic() - began, ray_s)
    for line in told:
        console.print(f"  {escape(line)}")


def _announce(listen: ListenAddress, dashboard: str | None, total_s: float, ray_s: float) -> None:
    url = listen.url
    console.print(f"voxray is ready at [bold]{url}[/] ({total_s:.1f} s, {ray_s:.1f} of them Ray's)")
    also = f", Ray's dashboard http://{dashboard}" if dashboard else ""
    console.print(f"  API {url}/docs{also}")
    if (local := listen.local_url) != DEFAULT_SERVER:
        console.print(f"  for the other commands: export VOXRAY_SERVER={local}")
    console.print("  Ctrl-C stops everything, once open sessions have ended or their time is over")


def _start_application(args: dict[str, Any], listen: ListenAddress) -> None:
    """Clients reach HAProxy only: all that is behind it listens on loopback."""
    from ray import serve

    from serve_app.app import application
    from serve_app.replicas import APP_NAME

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": LOOPBACK, "port": listen.port})
    serve.run(application(Config.model_validate(args)), name=APP_NAME, route_prefix="/")
    listen.await_ready()
