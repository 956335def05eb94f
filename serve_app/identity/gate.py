"""Asks every request and handshake who it is, before anything is done for it.

The same for every protocol, and without I/O: keys are known in memory. Without an authenticator no
key is needed and everybody is one tenant; then it matters which page a browser shows.
"""

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from serve_app.config import BrowserConfig
from serve_app.errors import ClientError
from serve_app.identity.client_address import client_address
from serve_app.identity.credentials import credential, lenient
from serve_app.identity.login_refused import SEND, LoginRefused, RefusalReason
from serve_app.identity.origins import KnownOrigins
from serve_app.identity.principal import EVERYBODY, Principal
from serve_app.identity.routes import Access
from serve_app.security import client_secret, sign_in
from serve_app.security.client_secret import PREFIX, ClientSecret
from serve_app.security.signing import SigningKeys

Revoked = Callable[[Collection[str]], None]
"""Gets the ids of keys that are not valid any more."""

MAYBE_NEW = (RefusalReason.UNKNOWN, RefusalReason.WRONG)
"""Keys that may have been made a moment ago."""


def known_origins(config: BrowserConfig, requires_keys: bool = False) -> KnownOrigins:
    """With the names of this machine."""
    machine = socket.gethostname()
    any_host = requires_keys and not config.hosts
    return KnownOrigins(config.origins, [*config.hosts, machine, f"{machine}.local"], any_host)


class Authenticates(Protocol):
    """Knows the keys: an `Authenticator`."""

    def authenticated(self, credential: str) -> Principal:
        """Raises `LoginRefused`."""

    def still_valid(self, key: str) -> bool:
        """Whether the key with this id may still be used."""

    def still_so(self, who: Principal) -> bool:
        """Whether that key is still of this tenant, and may do all of this."""

    def follow_revoked(self, follower: Revoked) -> None: ...

    async def refreshed(self) -> None: ...


class Notes(Protocol):
    """Keeps count of who is not let in: `Refusals`."""

    def note(self, reason: RefusalReason, address: str, key: str = "") -> None: ...


class Arrival(NamedTuple):
    """A request, a handshake, or a connection whose first message has come."""

    headers: Mapping[str, str]
    """A header that came several times is there as often."""
    query: str = ""
    peer: str = ""
    """The address at the other end of the connection, if it is known."""
    in_band: tuple[str, ...] = ()
    """Keys in a message."""
    method: str = "GET"


class Gate:
    """`authenticator`: None where no key is needed."""

    def __init__(
        self,
        known: KnownOrigins,
        signing: SigningKeys,
        authenticator: Authenticates | None = None,
        refusals: Notes | None = None,
    ) -> None:
        self._known = known
        self._signing = signing
        self._authenticator = authenticator
        self._refusals = refusals

    @property
    def needs_keys(self) -> bool:
        return self._authenticator is not None

    def caller(self, access: Access, came: Arrival) -> Principal:
        """Who it is. Raises `ClientError` for who may not have `access`, and for a page of a
        foreign origin that shows no credential of this server."""
        with self._noted(came):
            return self._caller(access, came)

    async def admitted(self, access: Access, came: Arrival) -> Principal:
        """The same for who can wait a moment: a key that was made just now is valid, too."""
        with self._noted(came):
            try:
                return self._caller(access, came)
            except LoginRefused as refused:
                if not self._authenticator or refused.reason not in MAYBE_NEW:
                    raise
            await self._authenticator.refreshed()
            return self._caller(access, came)

    def visited(self, came: Arrival) -> None:
        """For a page that everybody may see. Raises `ClientError` for one of a foreign origin."""
        self._known.check(came.headers)

    def shows_key(self, came: Arrival) -> bool:
        """Raises `ClientError` for one that stands where none may."""
        with self._noted(came):
            return self.needs_keys and bool(credential(came.headers.items(), came.query))

    def shows_anything(self, came: Arrival) -> bool:
        """Whether there is a key or a sign-in, right or wrong."""
        return self.shows_key(came) or bool(sign_in.shown(came.headers))

    def secret(self, headers: Mapping[str, str]) -> ClientSecret | None:
        """The client secret of a request, if it has one. Raises `ClientError`."""
        shown = next((key for key in lenient(headers.items()) if key.startswith(PREFIX)), "")
        return client_secret.opened(self._signing, shown, time.time()) if shown else None

    def follow_revoked(self, follower: Revoked) -> None:
        if self._authenticator:
            self._authenticator.follow_revoked(follower)

    def _caller(self, access: Access, came: Arrival) -> Principal:
        if self._authenticator is None:
            return self._unknown(access, came.headers)
        self._known.check_host(came.headers)
        key = credential(came.headers.items(), came.query, came.in_band)
        if key:
            caller = self._known_by(self._authenticator, key, access)
        else:
            caller = self._signed_in(self._authenticator, came)
        check_scopes(caller, access)
        return caller

    def _known_by(self, keys: Authenticates, key: str, access: Access) -> Principal:
        if not key.startswith(PREFIX):
            return keys.authenticated(key)
        _check_secrets(access)
        owner = client_secret.opened(self._signing, key, time.time()).owner
        if not owner.key or not keys.still_valid(owner.key):
            reason = "the client secret is not valid: the key that made it is not valid any more"
            raise ClientError("invalid_api_key", reason)
        return owner

    def _signed_in(self, keys: Authenticates, came: Arrival) -> Principal:
        """Who has a cookie instead of a key."""
        if not (shown := sign_in.shown(came.headers)):
            raise ClientError("missing_api_key", f"a key is needed; {SEND}")
        sign_in.check_page(came.headers, came.method)
        who = sign_in.opened(self._signing, shown, time.time())
        if not keys.still_so(who):
            raise sign_in.ended()
        return who

    def _unknown(self, access: Access, headers: Mapping[str, str]) -> Principal:
        """A client secret is worth what it says also where no key is needed."""
        if not (secret := self.secret(headers)):
            self._known.check(headers)
            return EVERYBODY
        _check_secrets(access)
        check_scopes(secret.owner, access)
        return secret.owner

    @contextmanager
    def _noted(self, came: Arrival) -> Iterator[None]:
        """Counts who is refused because of a key, and tells the audit log."""
        try:
            yield
        except ClientError as error:
            if self._refusals is not None and self.needs_keys:
                _note(self._refusals, error, client_address(came.headers, came.peer))
            raise


def check_scopes(caller: Principal, access: Access) -> None:
    """Raises `ClientError`."""
    if access.scopes and not access.scopes & caller.scopes:
        needed = " or ".join(sorted(access.scopes))
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise ClientError(
            "missing_scope", f"this needs a key with the scope {needed}; yours: {has}"
        )


def _check_secrets(access: Access) -> None:
    if not access.secrets:
        reason = "a client secret opens only WebSockets, as /v1/realtime; use a key here"
        raise ClientError("invalid_api_key", reason)


REASONS = {
    "missing_api_key": RefusalReason.MISSING,
    "missing_scope": RefusalReason.SCOPE,
    "invalid_api_key": RefusalReason.MALFORMED,
}


def _note(refusals: Notes, error: ClientError, address: str) -> None:
    if isinstance(error, LoginRefused):
        refusals.note(error.reason, address, error.key)
    elif error.code in REASONS:
        refusals.note(REASONS[error.code], address)
