"""`/v1/keys`: keys of the database, made, listed and revoked; what `voxray keys` does."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from serve_app.config.auth import AuthConfig
from serve_app.errors import ClientError
from serve_app.identity.api_key import Peppers
from serve_app.identity.api_keys import MOST_NAME, ApiKey, ApiKeys, NoSuchKey, Order, key_name
from serve_app.identity.peppers import peppers_of
from serve_app.identity.principal import Scope
from serve_app.identity.tenant import tenant_name
from serve_app.jobs.database import Database
from serve_app.observability.audit import audit

LONGEST_S = 3650 * 86_400


class KeyAsked(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(key_name)] = Field("", max_length=MOST_NAME)
    tenant: Annotated[str, AfterValidator(tenant_name)] = Field("default", max_length=63)
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_in_s: int | None = Field(
        None, ge=1, le=LONGEST_S, description="Seconds; absent: until it is revoked."
    )


Id = Annotated[str, Path(max_length=40)]


def router(auth: AuthConfig, database: Database) -> APIRouter:
    routes = APIRouter(prefix="/v1/keys", tags=["keys"])
    keys = ApiKeys(database)

    @routes.get("")
    async def list_keys() -> dict[str, Any]:
        """All keys of all tenants, the oldest first, also those that are not valid any more."""
        _peppers(auth)
        return {"object": "list", "data": [_shown(key) for key in await keys.all()]}

    @routes.post("", status_code=201)
    async def create_key(asked: KeyAsked) -> dict[str, Any]:
        """The answer has the key itself as `secret`; nobody can read it again."""
        order = Order(asked.tenant, frozenset(asked.scopes), asked.expires_in_s, asked.name)
        new = await keys.create(order, _peppers(auth))
        fields = {"name": asked.name, "scopes": sorted(asked.scopes)}
        audit("key_created", id=new.row.id, tenant=new.row.tenant, **fields)
        return {**_shown(new.row), "secret": str(new.shown)}

    @routes.delete("/{id}")
    async def revoke_key(id: Id) -> dict[str, Any]:
        """Every replica refuses it within 5 s, and ends what it has open."""
        _peppers(auth)
        try:
            key = await keys.revoke(id)
        except NoSuchKey as none:
            raise ClientError("key_not_found", "there is no key with this id") from none
        audit("key_revoked", id=key.id, tenant=key.tenant)
        return _shown(key)

    return routes


def _peppers(auth: AuthConfig) -> Peppers:
    """Raises `ClientError` where the server has no keys of the database."""
    if auth.mode != "keys":
        reason = "this server has no keys of its own making: configure `auth: keys`"
        raise ClientError("keys_not_managed", reason)
    return peppers_of(auth)


def _shown(key: ApiKey) -> dict[str, Any]:
    """Times are seconds since 1970."""
    return {"object": "key", **key.shown(time.time())}
