"""What a key needs for each path, against the routes that there are."""

import pytest

from serve_app.identity.principal import Scope
from serve_app.identity.routes import ADMIN, ANY_KEY, FOLDERS, PUBLIC, ROUTES, TCP, access_to
from tests.identity.walk import application, flat, routes_of

FOUND = sorted({route.path for route in routes_of(application())})


def test_every_route_and_socket_is_in_the_table_and_nothing_else() -> None:
    """A new route needs a line in serve_app/identity/routes.py."""
    assert set(FOUND) | {TCP} == set(ROUTES)


def test_every_mount_is_a_folder() -> None:
    mounts = {it.path for it in flat(application().routes) if type(it).__name__ == "Mount"}
    assert mounts == set(FOLDERS)


@pytest.mark.parametrize("path", FOUND)
def test_a_path_gets_what_its_row_says(path: str) -> None:
    asked = path.replace("{model:path}", "kind/sim").replace("{form}", "srt").replace("{id}", "x%y")
    assert access_to(asked) == ROUTES[path]


@pytest.mark.parametrize(
    "path",
    [
        *("", "//", "/nothing", "/v1", "/v1/jobs/", "//v1/health", "/v1/health/", "/V1/health"),
        *("/../v1/jobs", "/webs", "/v1/health\n", "tcp/", "/v1/jobs/a/b", "/v1/jobs/a/events/"),
        *("/openapi.json/x", "/health;x", "/%2e/health", "/v1/health\0"),
    ],
)
def test_any_other_path_needs_a_key(path: str) -> None:
    assert access_to(path) == ANY_KEY


def test_what_is_below_a_folder_is_as_the_folder() -> None:
    assert access_to("/web/voxray.js") == access_to("/web/") == PUBLIC
    assert access_to("/socket/?x") == ROUTES["/socket"]


def test_only_health_and_pages_are_public() -> None:
    public = {path for path, access in ROUTES.items() if access.public}
    assert public == {
        *("/health", "/v1/health", "/ready", "/v1/ready", "/openapi.json", "/web"),
        *("/", "/docs", "/docs/start.js", "/docs/assets", "/v1/sign_in"),
    }


def test_what_changes_or_shows_the_whole_server_is_for_admins() -> None:
    admin = {path for path, access in ROUTES.items() if access == ADMIN}
    assert {"/config/update", "/v1/metrics", "/v1/status", "/status"} <= admin


def test_client_secrets_open_sockets_only() -> None:
    opened = {path for path, access in ROUTES.items() if access.secrets}
    assert opened == {"/v1/realtime", "/v1/transcribe/stream", "/ws"}


def test_every_scope_opens_something() -> None:
    assert {scope for access in ROUTES.values() for scope in access.scopes} == set(Scope)
