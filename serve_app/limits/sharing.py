"""Shares a replica's limits with the other ingress replicas, in the background.

A handshake is answered from what is known here. Soon after, the store says whether it was one too
many, because another replica was first: then it is ended with an error. Only an HTTP request waits
for the store, a moment. While the store is away, what was known last is true for a while; after
that, each replica has its part of the limits.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import anyio

from serve_app.limits.account import QUOTAS, Account, Open
from serve_app.limits.lease import Lease
from serve_app.limits.shared_store import Granted, Opened
from serve_app.usage.meter import Counted

log = logging.getLogger("voxray.limits")

EVERY_S = 0.5
SOONEST_S = 0.02
EXCHANGE_S = 2.0
"""For all of an exchange."""

ASK_S = 0.05
"""How long a HTTP request waits for the store."""

ALONE_S = 3.0
"""Without an answer of the store for so long, a replica counts by itself."""

LATELY_S = 60.0
"""What others use is read for who has asked for something lately, or has something open."""

REPLICAS = Opened("replicas", 1)


class Store(Protocol):
    """A `SharedStore`."""

    async def report(self, rows: Sequence[Opened]) -> list[Granted]: ...

    async def take(self, name: str, most: int, requests: int = 1) -> bool: ...

    async def counted(self, name: str, requests: int) -> float: ...

    async def close(self) -> None: ...


class Held(NamedTuple):
    """What was reported of an account."""

    account: Account
    kind: Open
    leases: list[Lease]


Refuse = Callable[[Held, Lease], None]
"""Ends what is one too many."""


class Sharing:
    """Shares while `run` runs."""

    def __init__(
        self, store: Store, accounts: Callable[[], Collection[Account]], refuse: Refuse
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._refuse = refuse
        self._lately: dict[Account, float] = {}
        """Until when what others use is read."""
        self._wanted = asyncio.Event()
        self._answered_at = time.monotonic()
        self.answers: bool | None = None
        """Whether the store answered the last time; None before the first."""
        self._others = 0

    @property
    def is_alone(self) -> bool:
        return time.monotonic() - self._answered_at > ALONE_S

    @property
    def parts(self) -> int:
        """Among how many replicas the limits are divided."""
        return self._others + 1 if self.is_alone else 1

    def soon(self) -> None:
        """Something was opened."""
        self._wanted.set()

    async def full(self, accounts: Iterable[Account]) -> Account | None:
        """Count a request for all of them, or for none and return the one that has no room.

        Raises `TimeoutError` and errors of the store; then nobody knows, and it is not counted.
        """
        if not self.answers:
            raise TimeoutError
        limited = [it for it in accounts if it.limits.requests_per_minute]
        async with asyncio.timeout(ASK_S):
            for number, account in enumerate(limited):
                most = account.limits.requests_per_minute
                if not await self._store.take(_requests(account), most):
                    for earlier in limited[:number]:
                        await self._store.take(_requests(earlier), most, -1)
                    return account
        return None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._exchange_or_go_on()
                with anyio.move_on_after(EVERY_S):
                    await self._wanted.wait()
                self._wanted.clear()
                await asyncio.sleep(SOONEST_S)  # what comes at once is told at once
        finally:
            with anyio.move_on_after(EXCHANGE_S, shield=True):
                await self._leave()

    async def _leave(self) -> None:
        """Nothing is open here any more; without this, the store would find out by itself."""
        held = [it for account in self._lately for it in _held(account)]
        with contextlib.suppress(Exception):
            await self._store.report([_open(it)._replace(held=0) for it in held])
        await self._store.close()

    async def _exchange_or_go_on(self) -> None:
        try:
            async with asyncio.timeout(EXCHANGE_S):
                await self._exchange()
        except Exception as error:  # of any kind: limits hold here, and live speech goes on
            self._say(False, type(error).__name__)
            if self.is_alone:
                self._forget_others(self._lately)
        else:
            self._say(True)
            self._answered_at = time.monotonic()

    def _say(self, answers: bool, cause: str = "") -> None:
        before, self.answers = self.answers, answers
        if answers == before:
            return
        if answers:
            log.info("limits_shared", extra={"replicas": self._others + 1})
        else:
            log.warning("limits_not_shared", extra={"cause": cause})

    async def _exchange(self) -> None:
        accounts = self._used_lately(time.monotonic())
        held = [it for account in accounts for it in _held(account)]
        reserved = [it for account in accounts for it in _reserved(account)]
        rows = [REPLICAS, *map(_open, held), *(row for _, _, row in reserved)]
        replicas, *answers = await self._store.report(rows)
        self._others = replicas.elsewhere
        for it, granted in zip(held, answers, strict=False):
            it.account.elsewhere[it.kind] = granted.elsewhere
            for lease in it.leases[granted.held :]:
                self._refuse(it, lease)
        for (account, what, _), granted in zip(reserved, answers[len(held) :], strict=True):
            account.days[what].elsewhere = float(granted.elsewhere)
        for account in accounts:
            await self._exchange_requests(account)

    async def _exchange_requests(self, account: Account) -> None:
        if not account.limits.requests_per_minute:
            return
        untold, account.untold = account.untold, 0
        try:
            used = await self._store.counted(_requests(account), untold)
        except BaseException:
            account.untold += untold
            raise
        account.requests.observed(used, time.monotonic())

    def _used_lately(self, now: float) -> list[Account]:
        for account in self._accounts():
            if account.is_limited and (account.was_asked or not account.is_idle):
                account.was_asked = False
                self._lately[account] = now + LATELY_S
        past = [it for it, until in self._lately.items() if until < now]
        for account in past:
            del self._lately[account]
        self._forget_others(past)
        return list(self._lately)

    def _forget_others(self, accounts: Iterable[Account]) -> None:
        for account in accounts:
            account.forget_others()


def _held(account: Account) -> Iterator[Held]:
    for kind in Open:
        if getattr(account.limits, kind):
            yield Held(account, kind, list(account.leases[kind]))


def _open(held: Held) -> Opened:
    limit: int = getattr(held.account.limits, held.kind)
    return Opened(_name(held.kind, held.account), len(held.leases), limit)


def _reserved(account: Account) -> Iterator[tuple[Account, Counted, Opened]]:
    for what in QUOTAS:
        if account.quota(what):
            count = math.ceil(account.days[what].reserved)
            yield account, what, Opened(_name(what, account), count)


def _requests(account: Account) -> str:
    return _name("requests", account)


def _name(what: str, account: Account) -> str:
    return f"{what}:{account.tenant}:{account.key}"
