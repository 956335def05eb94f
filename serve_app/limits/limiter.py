"""Asks the limits of tenants and keys before work begins, and counts what is used of them.

Every question is answered at once, from what this replica knows: a handshake cannot wait. What the
other replicas use comes in the background (`Sharing`, and the database), so together they may let
in a little too much. A session that turns out to be one too many is ended with an error.
"""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import anyio

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.room import Room
from serve_app.limits import refusals
from serve_app.limits.account import QUOTAS, Account, Now, Open
from serve_app.limits.day import Reservation
from serve_app.limits.lease import Lease
from serve_app.limits.settings import TenantSettings
from serve_app.limits.sharing import Held, Sharing, Store
from serve_app.limits.standing import Left, headers, rate_limits, standings
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import LIMITED
from serve_app.usage.meter import Counted

log = logging.getLogger("voxray.limits")

DAY_S = 86_400
AHEAD_S = 60.0
"""Audio that is reserved for a session; with less left, what is left."""

TICK_S = 1.0
READ_S = 20.0
"""Between readings of what other processes have used today."""

MOST_ACCOUNTS = 10_000


class Used(Protocol):
    """What the database knows; the ledger of usage."""

    async def of_today(self, tenant: str) -> dict[tuple[str, Counted], float]:
        """By key and kind, all processes together. Raises `ClientError`."""


class Limiter:
    """Of one ingress replica."""

    def __init__(
        self,
        settings: TenantSettings,
        metrics: Metrics,
        retry_after_s: Callable[[], int],
        clock: Callable[[], Now] | None = None,
        store: Store | None = None,
    ) -> None:
        """`store`: where all ingress replicas share what they use; None if there is none."""
        self._settings = settings
        self._metrics = metrics
        self._retry_after_s = retry_after_s
        self._clock = clock or self._now
        self._accounts: dict[tuple[str, str], Account] = {}
        self._numbers = itertools.count()
        self._sharing = Sharing(store, self._accounts_known, self._one_too_many) if store else None
        settings.follow(self._changed)

    def _now(self) -> Now:
        return Now(time.monotonic(), int(time.time() // DAY_S), self.parts)

    @property
    def is_unshared(self) -> bool:
        """Whether other replicas should know what is used here, and do not."""
        return self._sharing is not None and not self._sharing.answers

    @property
    def parts(self) -> int:
        """Among how many replicas the limits are divided, because they cannot share them."""
        return self._sharing.parts if self._sharing else 1

    # For the doors.

    def limits(self, caller: Principal) -> bool:
        """Whether the caller has any."""
        return bool(self._limited(caller))

    def request(self, caller: Principal) -> None:
        """Count a request. Raises `ClientError` for one too many, which is not counted."""
        for account in self._let_in(caller):
            account.untold += 1

    async def requested(self, caller: Principal) -> None:
        """The same for who can wait a moment: other replicas know of it at once."""
        accounts = self._let_in(caller)
        if not accounts or self._sharing is None:
            return
        try:
            full = await self._sharing.full(accounts)
        except Exception:  # of any kind: they are told later
            for account in accounts:
                account.untold += 1
        else:
            if full:
                raise self._full(full, accounts)

    def _let_in(self, caller: Principal) -> list[Account]:
        """Counts a request here. Raises `ClientError`."""
        accounts = self._limited(caller)
        if accounts:
            now = self._clock()
            self._check_request(accounts, now)
            for account in accounts:
                account.requests.add(now.at)
        return accounts

    def _full(self, full: Account, accounts: Sequence[Account]) -> ClientError:
        for account in accounts:
            account.requests.take_back()
        now = self._clock()
        full.requests.observed(full.limits.requests_per_minute, now.at)
        return self._refused(refusals.too_fast(full, now), "requests_per_minute", *accounts)

    def session(self, caller: Principal, kinds: Sequence[Open], is_request: bool = True) -> Lease:
        """What a session holds until it ends. Its handshake is a request, too. Raises `ClientError`
        if one of the limits is reached; then nothing has been used."""
        accounts, now = self._of(caller), self._clock()
        if is_request:
            self._check_request(accounts, now)
        for account in accounts:
            self._check_places(account, kinds, now)
            self._check_quota(account, Counted.AUDIO, 0.0, now)
        return self._held(accounts, kinds, is_request, now)

    @contextmanager
    def quota(self, caller: Principal, what: Counted, amount: float = 0.0) -> Iterator[None]:
        """Reserve what work is going to use of a day's quota, if that is known: it must be free.
        Raises `ClientError`."""
        accounts, now = self._limited(caller), self._clock()
        for account in accounts:
            self._check_quota(account, what, amount, now)
        held = [Reservation(it.days[what], amount) for it in accounts if it.quota(what)]
        try:
            yield
        finally:
            for reservation in held:
                reservation.settle()

    def check_quota(self, caller: Principal, what: Counted, amount: float = 0.0) -> None:
        """Raises `ClientError` unless so much is left; for 0, anything."""
        for account in self._limited(caller):
            self._check_quota(account, what, amount, self._clock())

    def check_left(self, caller: Principal, what: Counted) -> None:
        """For work that goes on: what others have reserved may be used up. Raises `ClientError`."""
        now = self._clock()
        for account in self._limited(caller):
            if account.is_spent(what, now):
                raise self._refused(self._spent(account, what, now), QUOTAS[what], account)

    def rooms(self, caller: Principal) -> list[Room]:
        """For jobs of the caller, where it is limited."""
        limited = [(it.key, it.limits) for it in self._limited(caller)]
        rooms = [Room(key, it.waiting_jobs, it.stored_bytes) for key, it in limited]
        return [room for room in rooms if room.waiting or room.stored]

    def used(self, caller: Principal, what: Counted, amount: float) -> None:
        """Follows the meter."""
        if what in QUOTAS:
            day = self._clock().day
            for account in self._of(caller):
                account.days[what].add(amount, day)

    def headers(self, caller: Principal) -> dict[str, str]:
        """Of an answer: the limits and what is left of them."""
        accounts = self._limited(caller)
        return headers(self._standings(accounts)) if accounts else {}

    def rate_limits(self, caller: Principal) -> list[dict[str, Any]]:
        """As `rate_limits.updated` has them."""
        return rate_limits(self._standings(self._limited(caller)))

    def _standings(self, accounts: Sequence[Account]) -> list[Left]:
        return standings(accounts, self._clock(), _rest_of_day_s())

    # Checks, which change nothing.

    def _check_request(self, accounts: Sequence[Account], now: Now) -> None:
        for account in accounts:
            if not account.has_request(now):
                raise self._refused(
                    refusals.too_fast(account, now), "requests_per_minute", *accounts
                )

    def _check_places(self, account: Account, kinds: Sequence[Open], now: Now) -> None:
        for kind in kinds:
            if not account.has_place(kind, now):
                error = refusals.too_many_open(account, kind, self._retry_after_s())
                raise self._refused(error, kind, account)

    def _check_quota(self, account: Account, what: Counted, amount: float, now: Now) -> None:
        if not account.has_quota(what, amount, now):
            raise self._refused(self._spent(account, what, now), QUOTAS[what], account)

    def _spent(self, account: Account, what: Counted, now: Now) -> ClientError:
        return refusals.spent(account, what, now, _rest_of_day_s())

    def _refused(self, error: ClientError, limit: str, *accounts: Account) -> ClientError:
        self._metrics.count(LIMITED, limit)
        error.headers = headers(self._standings(accounts))
        return error

    # What is held.

    def _held(
        self, accounts: Sequence[Account], kinds: Sequence[Open], is_request: bool, now: Now
    ) -> Lease:
        lease = Lease(next(self._numbers))
        for account in accounts:
            for kind in kinds:
                lease.hold(account.leases[kind])
            if most := account.quota(Counted.AUDIO):
                day = account.days[Counted.AUDIO]
                lease.reserve(Reservation(day, min(AHEAD_S, day.free(most, now.day))))
            if is_request:
                account.requests.add(now.at)
                account.untold += 1
        if self._sharing and any(account.is_limited for account in accounts):
            self._sharing.soon()
        return lease

    def _one_too_many(self, held: Held, lease: Lease) -> None:
        """Another replica was first."""
        if lease in held.account.leases[held.kind] and lease.end:
            error = refusals.too_many_open(held.account, held.kind, self._retry_after_s())
            lease.refuse(self._refused(error, held.kind, held.account))

    # Accounts.

    def _of(self, caller: Principal) -> list[Account]:
        """The tenant's account and the key's, where there is a key."""
        found = [self._account(caller.tenant, "")]
        if caller.key:
            found.append(self._account(caller.tenant, caller.key))
        return found

    def _limited(self, caller: Principal) -> list[Account]:
        """Those that have a limit."""
        return [it for it in self._of(caller) if it.is_limited]

    def _accounts_known(self) -> Collection[Account]:
        return self._accounts.values()

    def _account(self, tenant: str, key: str) -> Account:
        if account := self._accounts.get((tenant, key)):
            account.was_asked = True
            return account
        if len(self._accounts) >= MOST_ACCOUNTS:
            self._accounts = {name: it for name, it in self._accounts.items() if not it.is_idle}
        account = Account(tenant, key, self._settings.limits(tenant, key))
        self._accounts[tenant, key] = account
        return account

    def _changed(self) -> None:
        for account in self._accounts.values():
            account.limit(self._settings.limits(account.tenant, account.key))

    # In the background.

    async def run(self, ledger: Used) -> None:
        """Until cancelled: end who has nothing left, read what other processes have used."""
        async with anyio.create_task_group() as tasks:
            if self._sharing:
                tasks.start_soon(self._sharing.run)
            tasks.start_soon(self._tick)
            tasks.start_soon(self._read, ledger)

    async def _tick(self) -> None:
        while True:
            self._end_spent()
            await asyncio.sleep(TICK_S)

    def _end_spent(self) -> None:
        now = self._clock()
        for account in list(self._accounts.values()):
            if account.leases[Open.SESSIONS] and account.is_spent(Counted.AUDIO, now):
                for lease in list(account.leases[Open.SESSIONS]):
                    lease.refuse(self._spent(account, Counted.AUDIO, now))

    async def _read(self, ledger: Used) -> None:
        """What the database knows is read for each tenant with a quota, soon after it came first
        and then now and then."""
        read_at: dict[str, float] = {}
        while True:
            now = time.monotonic()
            tenants = {it.tenant for it in self._accounts.values() if it.has_quotas}
            read_at = {tenant: read_at.get(tenant, -READ_S) for tenant in tenants}
            for tenant in [it for it in tenants if now - read_at[it] >= READ_S]:
                if await self._observe(ledger, tenant):
                    read_at[tenant] = now
            await asyncio.sleep(TICK_S)

    async def _observe(self, ledger: Used, tenant: str) -> bool:
        """Whether the database could be read."""
        day = self._clock().day
        try:
            sums = await ledger.of_today(tenant)
        except Exception as error:  # of any kind: what is used here is counted on
            fields = {"tenant": tenant, "cause": type(error).__name__}
            log.warning("limits_not_read", extra=fields)
            return False
        for account in [it for it in self._accounts.values() if it.tenant == tenant]:
            for what in QUOTAS:
                used = [sums[of] for of in sums if of[1] is what and account.key in ("", of[0])]
                account.days[what].observed(sum(used), day)
        return True


def unlimited(metrics: Metrics) -> Limiter:
    """For tests of what has no limits."""
    return Limiter(TenantSettings({}), metrics, lambda: 1)


def _rest_of_day_s() -> int:
    return math.ceil(DAY_S - time.time() % DAY_S)
