"""A caller who is not let in. Pure."""

from enum import StrEnum

from serve_app.errors import ClientError

SEND = "send a valid key as `Authorization: Bearer KEY`"


class RefusalReason(StrEnum):
    """Clients do not learn it, so that they cannot find out which keys there are."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG = "wrong"
    """The id of a key with another secret."""
    REVOKED = "revoked"
    EXPIRED = "expired"
    PEPPER = "pepper"
    """The key was made with a pepper that this server has not."""
    TOKEN = "token"
    """A token that the identity provider has not made, or not in this way."""
    ISSUER = "issuer"
    AUDIENCE = "audience"
    """A token for another service."""
    CLAIM = "claim"
    """A token without a claim that is needed, or with a wrong one, as that of the tenant."""
    SCOPE = "scope"


class LoginRefused(ClientError):
    """`key`: the id of the key that was shown, if it has one that exists."""

    def __init__(self, reason: RefusalReason, key: str = "") -> None:
        super().__init__("invalid_api_key", f"the key is not valid or has expired; {SEND}")
        self.reason = reason
        self.key = key
