"""Tokens (JWT, RFC 7519) of an identity provider: whom they name, and what those may do.

What a token says about how to check it is worth nothing: the algorithms, the keys and where they
come from are configured. Nothing here waits, and a token is checked once, not for each request.
"""

import time
from collections import OrderedDict
from typing import Any

import jwt

from serve_app.config.auth import JwtConfig
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import Principal, Scope
from serve_app.identity.provider_keys import ProviderKeys
from serve_app.identity.subject import subject_key
from serve_app.identity.tenant import tenant_name

MOST_KNOWN = 10_000
"""Tokens that are not checked again; beyond them, those that were not used for longest are."""

OPTIONS: Any = {"require": ["exp", "iss", "aud", "sub"]}

REASONS: dict[type[Exception], RefusalReason] = {
    jwt.ExpiredSignatureError: RefusalReason.EXPIRED,
    jwt.InvalidAudienceError: RefusalReason.AUDIENCE,
    jwt.InvalidIssuerError: RefusalReason.ISSUER,
    jwt.MissingRequiredClaimError: RefusalReason.CLAIM,
}


class Tokens:
    """`provider` is to run meanwhile."""

    def __init__(self, config: JwtConfig) -> None:
        """Raises `ValueError` for a file of keys that cannot be used."""
        self.provider = ProviderKeys(config)
        self._config = config
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._known_by = self.provider.current

    def caller(self, token: str, digest: bytes) -> Principal:
        """`digest`: its SHA-256. Raises `LoginRefused`, and `ClientError` `auth_unavailable`."""
        if self._known_by is not self.provider.current:  # a key may be gone
            self._known.clear()
            self._known_by = self.provider.current
        caller = self._known.get(digest) or self._checked(token)
        if caller.has_expired(time.time()):
            self._known.pop(digest, None)
            raise LoginRefused(RefusalReason.EXPIRED, caller.key)
        self._keep(digest, caller)
        return caller

    def _keep(self, digest: bytes, caller: Principal) -> None:
        self._known[digest] = caller
        self._known.move_to_end(digest)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _checked(self, token: str) -> Principal:
        try:
            claims = self._claims(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise LoginRefused(REASONS.get(type(error), RefusalReason.TOKEN)) from None
        try:
            return self._principal(claims)
        except (KeyError, ValueError, TypeError, OverflowError):
            raise LoginRefused(RefusalReason.CLAIM) from None

    def _claims(self, token: str) -> dict[str, Any]:
        """What the provider has signed for us."""
        config, header = self._config, jwt.get_unverified_header(token)
        if (algorithm := header.get("alg")) not in config.algorithms:
            raise LoginRefused(RefusalReason.TOKEN)
        key = self.provider.find(header.get("kid"), algorithm)
        return jwt.decode(
            token,
            key,
            [algorithm],
            OPTIONS,
            audience=config.audience,
            issuer=config.issuer,
            leeway=config.leeway_s,
        )

    def _principal(self, claims: dict[str, Any]) -> Principal:
        return Principal(
            tenant_name(claims[self._config.tenant_claim]),
            subject_key(claims["sub"]),
            self._scopes(claims.get(self._config.scopes_claim)),
            _seconds(claims["exp"]) + self._config.leeway_s,
        )

    def _scopes(self, claimed: Any) -> frozenset[Scope]:
        words = claimed.split() if isinstance(claimed, str) else claimed
        if not isinstance(words, list):
            return frozenset()
        prefix = self._config.scope_prefix
        return frozenset(scope for scope in Scope if f"{prefix}{scope}" in words)


def _seconds(claim: Any) -> float:
    """Raises `TypeError` for what is no number, which the library takes for one."""
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise TypeError
    return float(claim)
