"""`GET /v1/usage`: what tenants and their keys have used, by day."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from pydantic import BeforeValidator

from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal, Scope
from serve_app.usage.ledger import Ledger
from serve_app.usage.report import Group, UsageAsked, as_csv

CSV = "text/csv"
MOST_DAYS = 400
DEFAULT_DAYS = 30
GROUPS = get_args(Group)
DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _only_dates(value: Any) -> Any:
    """pydantic would take a number for seconds since 1970."""
    if isinstance(value, str) and not DATE.fullmatch(value):
        raise ValueError("must be a day in UTC, as 2026-11-30")
    return value


Day = Annotated[date, BeforeValidator(_only_dates)]
From = Annotated[
    Day | None, Query(alias="from", description="The first day, UTC; default: 30 days ago.")
]
To = Annotated[Day | None, Query(description="The last day, UTC; default: today.")]
GroupBy = Annotated[
    str,
    Query(
        max_length=40,
        description="Some of `day`, `tenant` and `key`, with commas between them; empty: one sum.",
    ),
]
Tenant = Annotated[str | None, Query(max_length=80, description="Only this tenant.")]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Rows at most.")]
Offset = Annotated[int, Query(ge=0, le=10_000_000, description="Rows to leave out: earlier pages.")]
Format = Annotated[
    Literal["json", "csv"] | None,
    Query(alias="format", description="Default: CSV if the header `Accept` asks for it."),
]


def router(ledger: Ledger) -> APIRouter:
    routes = APIRouter(tags=["usage"])

    @routes.get("/v1/usage", response_model=None)
    async def usage(
        caller: Caller,
        first: From = None,
        to: To = None,
        group_by: GroupBy = "day,tenant,key",
        tenant: Tenant = None,
        limit: Limit = 1000,
        offset: Offset = 0,
        form: Format = None,
        accept: Annotated[str, Header()] = "",
    ) -> Response | dict[str, Any]:
        """Audio heard, characters spoken, tokens, jobs and requests, by day, tenant and key; and
        what is stored now, in the rows of today. A key sees its own tenant; with the scope `admin`
        it sees all. Exact to the last minute."""
        last = to or datetime.now(UTC).date()
        span = _checked(first or last - timedelta(days=DEFAULT_DAYS), last)
        asked = UsageAsked(*span, _groups(group_by), _whose(caller, tenant), limit, offset)
        rows = await ledger.report(asked)
        shown, more = rows[:limit], len(rows) > limit
        if form == "csv" or (form is None and CSV in accept):
            return Response(as_csv(asked.by, shown), media_type=CSV)
        return {
            "object": "list",
            "from": asked.first.isoformat(),
            "to": asked.last.isoformat(),
            "group_by": asked.by,
            "data": shown,
            "has_more": more,
        }

    return routes


def _checked(first: date, last: date) -> tuple[date, date]:
    days = (last - first).days + 1
    if not 1 <= days <= MOST_DAYS:
        reason = f"from {first} to {last} are {days} days; 1 to {MOST_DAYS} are allowed"
        raise ClientError("invalid_value", reason, param="from")
    return first, last


def _groups(names: str) -> tuple[Group, ...]:
    """In their own order."""
    asked = {name.strip() for name in names.split(",")} - {""}
    if wrong := asked - set(GROUPS):
        reason = f"group_by: {min(wrong)[:40]!r} is not one of {', '.join(GROUPS)}"
        raise ClientError("invalid_value", reason, param="group_by")
    return tuple(name for name in GROUPS if name in asked)


def _whose(caller: Principal, tenant: str | None) -> str | None:
    """Which tenant the caller may see; None: all. Raises `ClientError`."""
    if Scope.ADMIN in caller.scopes:
        return tenant
    if tenant not in (None, caller.tenant):
        reason = "this key sees only the usage of its own tenant; other tenants need scope admin"
        raise ClientError("missing_scope", reason, param="tenant")
    return caller.tenant
