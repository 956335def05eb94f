"""The configuration of who may connect: keys, tokens of an identity provider, the audit log."""

import os
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from serve_app.config.model import ConfigModel

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Only asymmetric ones: with the others, who can check a token can also make one."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class JwtConfig(ConfigModel):
    """Tokens (JWT) of an identity provider, accepted as keys."""

    issuer: str = Field(
        "",
        description="What a token must say as `iss`; set it with `audience` and `jwks`. Empty: no "
        "tokens are accepted.",
    )
    audience: str = Field("", description="What a token must have in `aud`.")
    jwks: str = Field(
        "",
        description="The provider's public keys (JWKS): a file, or a URL with https. Nothing that "
        "a token names is fetched.",
    )
    algorithms: tuple[Algorithm, ...] = Field(
        ("RS256", "ES256"), min_length=1, description="Signatures that are accepted."
    )
    tenant_claim: str = Field("tenant", min_length=1, description="The claim with the tenant.")
    scopes_claim: str = Field(
        "scope",
        min_length=1,
        description="The claim with the scopes: a list, or words in one string.",
    )
    scope_prefix: str = Field(
        "voxray:",
        description="What a scope of voxray begins with in that claim, as in `voxray:transcribe`; "
        "other scopes are ignored.",
    )
    leeway_s: float = Field(
        30.0, ge=0, le=60, description="Seconds by which the provider's clock may be wrong."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.configured and not (self.issuer and self.audience and self.jwks):
            raise ValueError("issuer, audience and jwks belong together: set all three")
        url = urlsplit(self.jwks)
        if "://" in self.jwks and ("@" in url.netloc or url.fragment):
            raise ValueError("jwks: a URL without a user and without `#`")
        if url.scheme == "http" and url.hostname not in LOOPBACK:
            raise ValueError("jwks: use https; http only for this machine itself")
        if "://" in self.jwks and (url.scheme not in ("http", "https") or not url.hostname):
            raise ValueError("jwks: give a file's path or a URL with https")
        return self

    @property
    def configured(self) -> bool:
        return bool(self.issuer or self.audience or self.jwks)


def _mode(value: Any) -> Any:
    """YAML reads `on` and `off` as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class AuthConfig(ConfigModel):
    """Who may connect. `auth: keys` is short for `auth: {mode: keys}`."""

    mode: Annotated[Literal["", "off", "on", "keys"], BeforeValidator(_mode)] = Field(
        "",
        description="`keys`: a key is needed, and keys made by `voxray keys` are valid, too; "
        "`on`: a key is needed, from `key_variable`, `key_file` or `jwt`; `off`: none is needed. "
        "Empty: `on` if one of these is configured, else `off`.",
    )
    key_variable: str = Field(
        "VOXRAY_API_KEY",
        description="The environment variable with keys of your own, separated by commas: tenant "
        "`default`, all scopes.",
    )
    key_file: str = Field(
        "",
        description="A file (YAML, mode 0600) with keys, each with its tenant and scopes; read "
        "again when it changes.",
    )
    pepper_variable: str = Field(
        "VOXRAY_KEY_PEPPER",
        description="The environment variable with peppers, 32 bytes in base64 each, separated by "
        "commas: the first one is for new keys, all of them are valid. `auth: keys` needs one.",
    )
    jwt: JwtConfig = JwtConfig()
    audit_file: str = Field(
        "", description="The audit log; empty: `audit.log` in `storage.directory`."
    )

    @property
    def required(self) -> bool:
        """Whether callers must say who they are. Reads the environment."""
        return self.mode in ("on", "keys") or (self.mode == "" and self._configured)

    @property
    def decided(self) -> "AuthConfig":
        """The same for processes with another environment: none of them is open by mistake."""
        mode = self.mode or ("on" if self.required else "off")
        return self.model_copy(update={"mode": mode})

    @property
    def keys(self) -> str:
        """The keys in the environment; "" if there are none."""
        return os.environ.get(self.key_variable, "").strip()

    @property
    def peppers(self) -> str:
        """The peppers in the environment; "" if there are none."""
        return os.environ.get(self.pepper_variable, "").strip()

    @property
    def _configured(self) -> bool:
        return bool(self.keys or self.key_file or self.jwt.configured)


def from_shorthand(value: Any) -> Any:
    """`auth: keys` as a section."""
    return {"mode": value} if isinstance(value, str | bool) else value


Auth = Annotated[AuthConfig, BeforeValidator(from_shorthand)]
