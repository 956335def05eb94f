"""Generates the parts of docs/ that come from the code: `make docs`."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.boards import write_boards
from serve_app.config import Config
from serve_app.config.tenants import NO_LIMITS, TenantConfig, TenantName
from serve_app.errors import CODES
from serve_app.identity.routes import ROUTES, TCP, Access
from serve_app.observability.audit_events import AUDIT_EVENTS
from serve_app.observability.log_events import LOG_EVENTS
from serve_app.observability.table import TABLE

DOCS = Path(__file__).parent


def configuration() -> str:
    """Every configuration key, with its default and unit."""
    rows = "\n".join(_rows(Config, ""))
    return f"""# Configuration

Every key of the configuration, with its default, unit and range.

All keys are under `args` in `serve_config.yaml` or in your own file (`voxray run --config FILE`). Unknown keys and
values out of range are refused. Names contain the unit: `_s` is seconds, `_ms` milliseconds.

Every key can also be set by an environment variable: `VOXRAY__`, then the key in upper case with two underscores for
each dot. A value for a whole section, or for a key that takes several values, is JSON.

```sh
export VOXRAY__PROFILE=sim
export VOXRAY__TRANSCRIBER__SCALE__MAX_REPLICAS=8
export VOXRAY__SPEAKER__STYLES='{{"cheerful": "af_bella"}}'
```

The first of these that sets a key wins: an option of the command, the environment, the file, the profile (a set of
default engines), the default. Sections are merged key by key. A variable that starts with `VOXRAY__` and is no setting
is an error that names it. Variables with one underscore, such as `VOXRAY_DATABASE_URL`, are not settings.

`voxray run` reads the environment when it starts. On a cluster Ray Serve builds the application on one of the nodes and
gives the result to every replica, so set the same variables on every node, before `ray start`. `voxray env` checks them
and prints them with the others.

`make docs` generates this page from `serve_app/config/`.

| key | default | what |
|---|---|---|
{rows}

## What is not in this file

| option of `voxray run` | what |
|---|---|
| `--host`, `--port` | the address; overrides `http_options` of the file. Default: 127.0.0.1, 8000 |
| `--log-format` | `json` or `text`: print the log lines of all replicas on stdout |
| `--profile` | `cpu`, `gpu` or `sim`; overrides `profile` of the file |
| `--dashboard` | start Ray's dashboard, too: eleven processes, 300 MB |
| `--insecure` | let other machines in without a key ([keys.md](keys.md)) |

Ray Serve reads HAProxy mode and some other settings from the environment of the processes that start it. `voxray run`
sets them; `voxray env` prints them for a cluster.

Next: [deployment.md](deployment.md), [engines.md](engines.md), and [observability.md](observability.md) for the keys
that may change while the server runs.
"""


def _rows(model: type[BaseModel], prefix: str, given: BaseModel | None = None) -> Iterator[str]:
    for name, field in model.model_fields.items():
        default = getattr(given, name) if given else field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel) and not field.description:
            yield from _rows(type(default), f"{prefix}{name}.", default)
        else:
            yield f"| `{prefix}{name}` | {_shown(default)} | {_described(field)} |"
        if field.annotation == dict[TenantName, TenantConfig]:
            yield from _rows(TenantConfig, f"{prefix}{name}.NAME.")


def _shown(default: object) -> str:
    return f"`{default!r}`".replace("'", '"') if default not in ("", {}, NO_LIMITS) else "-"


BOUNDS = {"ge": "at least", "gt": "over", "le": "at most", "multipleof": "in steps of"}


def _described(field: FieldInfo) -> str:
    bounds = [
        f"{type(m).__name__.lower()} {bound}" for m in field.metadata for bound in vars_of(m)[:1]
    ]
    said = [re.sub(r"^\w+", lambda found: BOUNDS[found[0]], bound) for bound in bounds]
    return (field.description or "") + (f" ({', '.join(said)})" if said else "")


def vars_of(bound: object) -> list[object]:
    """The one number of an annotated_types bound."""
    return [
        getattr(bound, name) for name in ("ge", "gt", "le", "multiple_of") if hasattr(bound, name)
    ]


def errors() -> str:
    """Every error code."""
    rows = "\n".join(
        f"| `{name}` | {code.meaning} | {code.status} | {code.close or '-'} |"
        for name, code in CODES.items()
    )
    return f"| code | meaning | HTTP | close |\n|---|---|---|---|\n{rows}\n"


def metrics() -> str:
    """Every metric."""
    rows = "\n".join(
        f"| `{it.name}` | {it.kind.value} | {it.unit} "
        f"| {', '.join(f'`{label}`' for label in it.labels) or '-'} | {it.help} |"
        for it in TABLE
    )
    return f"| metric | kind | unit | labels | what |\n|---|---|---|---|---|\n{rows}\n"


def log_events() -> str:
    """Every event that is logged."""
    rows = "\n".join(
        f"| `{it.name}` | {it.level} | {', '.join(f'`{field}`' for field in it.fields) or '-'} "
        f"| {it.help} |"
        for it in LOG_EVENTS.values()
    )
    return f"| event | level | fields | what |\n|---|---|---|---|\n{rows}\n"


def scopes() -> str:
    """What a key needs for each path."""
    paths: dict[Access, list[str]] = {}
    for path, access in ROUTES.items():
        paths.setdefault(access, []).append("TCP" if path == TCP else f"`{path}`")
    rows = "\n".join(f"| {_needed(it)} | {', '.join(them)} |" for it, them in paths.items())
    return f"| needs | for |\n|---|---|\n{rows}\n"


def _needed(access: Access) -> str:
    if access.public:
        return "no key"
    words = " or ".join(f"`{scope}`" for scope in sorted(access.scopes)) or "any key"
    return f"{words}; a client secret will do" if access.secrets else words


def audit_events() -> str:
    """Every event of the audit log."""
    rows = "\n".join(
        f"| `{name}` | {', '.join(f'`{field}`' for field in it.fields)} | {it.help} |"
        for name, it in AUDIT_EVENTS.items()
    )
    return f"| event | fields | what |\n|---|---|---|\n{rows}\n"


def updated(page: str, name: str, table: str) -> str:
    """The page with a new table between its two comments of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = page.split(begin)
    return before + begin + table + end + rest.split(end)[1]


def main() -> None:
    (DOCS / "configuration.md").write_text(configuration())
    write_boards()
    protocol = DOCS / "protocol.md"
    protocol.write_text(updated(protocol.read_text(), "errors", errors()))
    observability = DOCS / "observability.md"
    page = updated(observability.read_text(), "metrics", metrics())
    observability.write_text(updated(page, "events", log_events()))
    keys = DOCS / "keys.md"
    page = updated(keys.read_text(), "scopes", scopes())
    keys.write_text(updated(page, "audit", audit_events()))


if __name__ == "__main__":
    main()
