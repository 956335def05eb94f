"""What a key needs for each path: one table for HTTP, WebSockets, Socket.IO and TCP. Pure.

A path that is not here needs a valid key, whatever its scopes, before it can answer 404. A method
makes no difference: HEAD and OPTIONS need what GET does. docs/keys.md is made from this table.
"""

import re
from typing import NamedTuple

from serve_app.identity.principal import Scope


class Access(NamedTuple):
    scopes: frozenset[Scope] = frozenset()
    """One of these; none: any valid key."""
    public: bool = False
    """Needs no key."""
    secrets: bool = False
    """A client secret opens it, too."""
    in_band: bool = False
    """The key may come in a message after the connection stands."""


def _needs(*scopes: Scope, secrets: bool = False, in_band: bool = False) -> Access:
    return Access(frozenset(scopes), secrets=secrets, in_band=in_band)


PUBLIC = Access(public=True)
ANY_KEY = Access()
TRANSCRIBE, SPEAK = _needs(Scope.TRANSCRIBE), _needs(Scope.SPEAK)
JOBS, ADMIN = _needs(Scope.JOBS), _needs(Scope.ADMIN)

TCP = "tcp"
"""The TCP port, which has no paths."""

SOCKETS = {
    "/v1/transcribe/stream": _needs(Scope.TRANSCRIBE, secrets=True),
    "/v1/realtime": _needs(Scope.REALTIME, Scope.TRANSCRIBE, secrets=True),
    "/ws": _needs(Scope.REALTIME, secrets=True),
    "/socket": _needs(Scope.TRANSCRIBE, in_band=True),
    TCP: _needs(Scope.REALTIME, in_band=True),
}

ROUTES = {
    # Whether it works, and what it is.
    "/health": PUBLIC,
    "/v1/health": PUBLIC,
    "/ready": PUBLIC,
    "/v1/ready": PUBLIC,
    "/docs": PUBLIC,
    "/docs/start.js": PUBLIC,
    "/docs/assets": PUBLIC,
    "/openapi.json": PUBLIC,
    "/": PUBLIC,
    "/web": PUBLIC,
    "/v1/sign_in": PUBLIC,
    # The whole server.
    "/status": ADMIN,
    "/v1/status": ADMIN,
    "/v1/metrics": ADMIN,
    "/v1/metrics/history": ADMIN,
    "/v1/keys": ADMIN,
    "/v1/keys/{id}": ADMIN,
    "/speech-to-speech/metrics": ADMIN,
    "/speech-to-speech/performance": ADMIN,
    "/config/update": ADMIN,
    "/v1/tenants/{id}/data": ADMIN,
    # What every client may ask.
    "/v1/models": ANY_KEY,
    "/v1/usage": ANY_KEY,
    "/v1/models/status": ANY_KEY,
    "/models/status": ANY_KEY,
    "/v1/models/{model:path}": ANY_KEY,
    "/v1/audio/voices": ANY_KEY,
    # Speech to text.
    "/v1/transcribe": TRANSCRIBE,
    "/transcribe/file": TRANSCRIBE,
    "/transcribe/stream": TRANSCRIBE,
    "/v1/audio/transcriptions": TRANSCRIBE,
    "/v1/audio/translations": TRANSCRIBE,
    # Text to speech, chat, conversations.
    "/v1/audio/speech": SPEAK,
    "/v1/chat/completions": _needs(Scope.CHAT),
    "/v1/realtime/client_secrets": _needs(Scope.REALTIME, Scope.TRANSCRIBE),
    # Recordings.
    "/v1/jobs": JOBS,
    "/v1/jobs/events": JOBS,
    "/v1/jobs/{id}": JOBS,
    "/v1/jobs/{id}/events": JOBS,
    "/v1/jobs/{id}/result": JOBS,
    "/v1/jobs/{id}/results": JOBS,
    "/v1/jobs/{id}/revisions": JOBS,
    "/v1/jobs/{id}/export/{form}": JOBS,
    "/v1/jobs/{id}/audio": JOBS,
    "/v1/jobs/{id}/peaks": JOBS,
    "/v1/uploads": JOBS,
    "/v1/uploads/{id}": JOBS,
    "/v1/webhooks": JOBS,
    "/v1/webhooks/{id}/retry": JOBS,
    "/api/upload": JOBS,
    "/api/status/{id}": JOBS,
    "/api/results/{id}": JOBS,
    "/api/jobs": JOBS,
    "/api/jobs/{id}": JOBS,
    "/api/transcribe/upload": JOBS,
    "/api/transcribe/start": JOBS,
    "/api/transcriptions": JOBS,
    "/api/transcription/{id}": JOBS,
    "/api/export/{id}/{form}": JOBS,
    **SOCKETS,
}

FOLDERS = ("/docs/assets", "/web", "/socket")
"""Everything below these paths is meant, too."""


def access_to(path: str) -> Access:
    """`path` without the query, decoded."""
    if found := _PLAIN.get(path):
        return found
    for pattern, access in _PATTERNS:
        if pattern.fullmatch(path):
            return access
    return ANY_KEY


def _pattern(path: str) -> re.Pattern[str]:
    if path in FOLDERS:
        return re.compile(re.escape(path) + "/.*", re.DOTALL)
    parts = re.split(r"(\{[^}]*\})", path)
    return re.compile("".join(map(_part, parts)), re.DOTALL)


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return ".*" if part.endswith(":path}") else "[^/]+"


_PLAIN = {path: access for path, access in ROUTES.items() if "{" not in path}
_PATTERNS = [
    (_pattern(path), access) for path, access in ROUTES.items() if "{" in path or path in FOLDERS
]
