"""How long each tenant's data is kept, in SQL. Pure."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from serve_app.jobs.database import now
from serve_app.jobs.tables import deliveries, histories, jobs

FOREVER_S = 1e12

Kept = Mapping[str, float]
"""Seconds, for each tenant that has data. One that has its first data only now has nothing old."""

WITH_DATA = sa.union(*(sa.select(table.c.tenant) for table in (jobs, deliveries, histories)))
"""The tenants that have something that ends."""


def is_over(tenant: sa.Column[str], at: sa.Column[Any], kept: Kept) -> sa.ColumnElement[bool]:
    """Longer ago than the tenant's data is kept."""
    if not kept:
        return sa.false()
    return at < now() - sa.case(dict(kept), value=tenant, else_=FOREVER_S)
