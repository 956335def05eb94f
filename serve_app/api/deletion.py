"""`DELETE /v1/tenants/{id}/data`: everything that is stored for a tenant is deleted."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal, Scope
from serve_app.identity.tenant import tenant_name
from serve_app.jobs.deletion import Deleted, Deletion
from serve_app.observability.audit import audit

WAIT_S = 10.0
"""How long the answer waits for jobs that are being cancelled."""

POLL_S = 0.25
KINDS = ("recordings", "webhooks", "conversations", "objects")


def router(deletion: Deletion) -> APIRouter:
    routes = APIRouter(tags=["tenants"])

    @routes.delete("/v1/tenants/{id}/data")
    async def delete(
        caller: Caller, id_: Annotated[str, Path(alias="id", max_length=80)]
    ) -> JSONResponse:
        """Delete a tenant's recordings, results, recorded sessions, webhooks, conversations and
        cached results. Jobs that run are cancelled first: 202 while some still run; they are
        deleted when they end. It may be repeated. Usage and the audit log are kept."""
        tenant = _checked(caller, id_)
        audit("tenant_deleted", tenant=tenant)
        return _answer(tenant, await _deleted(deletion, tenant))

    return routes


def _checked(caller: Principal, tenant: str) -> str:
    """Raises `ClientError`."""
    if Scope.ADMIN not in caller.scopes:
        raise ClientError("missing_scope", "this needs a key with the scope admin")
    try:
        return tenant_name(tenant)
    except ValueError as error:
        raise ClientError("not_found", str(error)) from error


async def _deleted(deletion: Deletion, tenant: str) -> Deleted:
    counts, running = await deletion.request(tenant)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while running and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(POLL_S)
        more, running = await deletion.carry_out(tenant)
        counts += more
    return Deleted(counts, running)


def _answer(tenant: str, deleted: Deleted) -> JSONResponse:
    body = {
        "object": "tenant.data",
        "tenant": tenant,
        "deleted": {name: deleted.counts[name] for name in KINDS},
        "running": deleted.running,
    }
    return JSONResponse(body, 202 if deleted.running else 200)
