"""Delivers webhooks: signed, retried with backoff, and listed as dead after the last attempt.

Signatures as in https://www.standardwebhooks.com: HMAC-SHA256 over `id.timestamp.body`.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from typing import Any, NamedTuple

import httpcore2 as httpcore
import sqlalchemy as sa

from serve_app.backoff import backoff_s
from serve_app.config import WebhookConfig
from serve_app.errors import ClientError
from serve_app.jobs.database import Database, now
from serve_app.jobs.private import Private
from serve_app.jobs.retention import Kept, is_over
from serve_app.jobs.tables import deliveries
from serve_app.jobs.webhooks.addresses import AddressRefused, check_url
from serve_app.jobs.webhooks.connecting import connections, target
from serve_app.jobs.webhooks.secret import secret_of

log = logging.getLogger("voxray.webhooks")

POLL_S = 0.5
AT_ONCE = 8
"""Deliveries in parallel: one slow receiver must not block the others."""

LONGEST_PAUSE_S = 3600.0


class Delivery(NamedTuple):
    """A webhook's row."""

    id: str
    job_id: str
    tenant: str
    url: str
    body: str
    state: str
    attempts: int
    due: float
    created: float
    outcome: str | None

    @classmethod
    def of(cls, row: Any) -> "Delivery":
        return cls(*(row[name] for name in cls._fields))

    def ids(self) -> dict[str, str]:
        """The fields of a log line."""
        return {"webhook": self.id, "job": self.job_id, "tenant": self.tenant}

    def view(self) -> dict[str, Any]:
        fields = self._asdict()
        del fields["body"], fields["tenant"]
        return fields | {"object": "webhook_delivery"}


def sign(secret: bytes, id_: str, timestamp: int, body: str) -> str:
    """The header `webhook-signature`."""
    signed = hmac.new(secret, f"{id_}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def check_webhook(url: str, config: WebhookConfig) -> None:
    """Check before a job is accepted. Raises `ClientError`."""
    check_url(url, config.allow_private)
    if secret_of(config) is None:
        reason = f"webhooks need a secret for signatures: {config.secret_variable} is not set"
        raise ClientError("webhook_refused", reason)


class Webhooks:
    """Delivers due webhooks, while `run` runs. Several workers share them."""

    def __init__(
        self, database: Database, config: WebhookConfig, private: Private | None = None
    ) -> None:
        self._database = database
        self._private = private or Private()
        self._config = config
        self._secret = secret_of(config)

    async def run(self) -> None:
        async with (
            connections(self._config.allow_private, AT_ONCE) as pool,
            asyncio.TaskGroup() as tasks,
        ):
            slots = asyncio.Semaphore(AT_ONCE)
            while True:
                await slots.acquire()
                if delivery := await self._next():
                    call = tasks.create_task(self._attempt(pool, delivery))
                    call.add_done_callback(lambda _: slots.release())
                else:
                    slots.release()
                    await asyncio.sleep(POLL_S)

    async def _next(self) -> Delivery | None:
        try:
            return await self._claim()
        except ClientError as error:
            log.warning("webhooks_unavailable", extra={"code": error.code})
            return None

    async def _attempt(self, pool: httpcore.AsyncConnectionPool, delivery: Delivery) -> None:
        failure = await self._deliver(pool, delivery)
        try:
            await self._settle(delivery, failure)
        except ClientError as error:  # it will be sent again, with the same id
            log.warning("webhook_outcome_lost", extra={"code": error.code, **delivery.ids()})

    async def listed(self, tenant: str, state: str | None, limit: int) -> list[Delivery]:
        """The newest first."""
        wanted = deliveries.select().where(deliveries.c.tenant == tenant)
        if state:
            wanted = wanted.where(deliveries.c.state == state)
        async with self._database.read() as connection:
            rows = await connection.execute(
                wanted.order_by(deliveries.c.created.desc()).limit(limit)
            )
            return [Delivery.of(self._private.delivery(row)) for row in rows.mappings()]

    async def retry(self, tenant: str, id_: str) -> Delivery:
        """Send a dead one again. Raises `ClientError` `not_found`."""
        mine = (deliveries.c.tenant == tenant) & (deliveries.c.id == id_)
        values = {"state": "waiting", "attempts": 0, "due": now()}
        async with self._database.write() as connection:
            row = await connection.execute(
                deliveries.update()
                .where(mine & (deliveries.c.state == "dead"))
                .values(values)
                .returning(*deliveries.c)
            )
            found = row.mappings().first()
        if not found:
            raise ClientError("not_found", f"there is no dead webhook {id_[:80]!r}")
        return Delivery.of(self._private.delivery(found))

    async def forget(self, kept: Kept) -> None:
        """Delete those that ended and are older than they are kept."""
        over = deliveries.c.state != "waiting"
        async with self._database.write() as connection:
            old = is_over(deliveries.c.tenant, deliveries.c.created, kept)
            await connection.execute(deliveries.delete().where(over & old))

    async def _claim(self) -> Delivery | None:
        """The next one that is due; another worker gets it if this one does not finish in time."""
        due = (deliveries.c.state == "waiting") & (deliveries.c.due <= now())
        candidate = (
            sa.select(deliveries.c.id)
            .where(due)
            .order_by(deliveries.c.due)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with self._database.read() as connection:
            if await connection.scalar(sa.select(deliveries.c.id).where(due).limit(1)) is None:
                return None
        async with self._database.write() as connection:
            row = await connection.execute(
                deliveries.update()
                .where(deliveries.c.id == candidate.scalar_subquery())
                .values(due=now() + 3 * self._config.timeout_s, attempts=deliveries.c.attempts + 1)
                .returning(*deliveries.c)
            )
            found = row.mappings().first()
        return Delivery.of(self._private.delivery(found)) if found else None

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, delivery: Delivery) -> str | None:
        """Why the delivery failed; None if it succeeded."""
        if self._secret is None:
            return f"{self._config.secret_variable} is not set"
        if not delivery.url:
            return "the webhook cannot be decrypted"
        timestamp = int(time.time())
        headers: dict[str | bytes, str | bytes] = {
            "content-type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, delivery.id, timestamp, delivery.body),
        }
        try:
            async with asyncio.timeout(self._config.timeout_s):
                url = target(check_url(delivery.url, self._config.allow_private))
                body = delivery.body.encode()
                async with pool.stream("POST", url, headers=headers, content=body) as answer:
                    # neither its body is read nor a redirect followed
                    return None if answer.status // 100 == 2 else f"HTTP {answer.status}"
        except (AddressRefused, ClientError) as error:
            return str(error)
        except (TimeoutError, httpcore.TimeoutException):
            return "no answer in time"
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            return type(error).__name__

    async def _settle(self, delivery: Delivery, failure: str | None) -> None:
        pause_s = backoff_s(self._config.retry_backoff_s, delivery.attempts, LONGEST_PAUSE_S)
        dead = delivery.attempts >= self._config.max_attempts
        state = "delivered" if failure is None else "dead" if dead else "waiting"
        values = {"state": state, "outcome": failure, "due": now() + pause_s}
        if failure:
            fields = {"cause": failure, "attempt": delivery.attempts, **delivery.ids()}
            log.warning("webhook_failed", extra=fields)
        async with self._database.write() as connection:
            mine = deliveries.c.id == delivery.id
            await connection.execute(deliveries.update().where(mine).values(values))
