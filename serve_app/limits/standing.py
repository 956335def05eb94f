"""How much of each limit is left, as answers say it. Pure.

The names are OpenAI's, and Groq's for seconds of audio. Of a key's and its tenant's limits, the one
that is nearer counts.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from serve_app.limits.account import Account, Now
from serve_app.usage.meter import Counted

NAMES = {
    Counted.AUDIO: "audio-seconds",
    Counted.CHARACTERS: "characters",
    Counted.TOKENS: "tokens",
}
REQUESTS = "requests"
REALTIME = (REQUESTS, "tokens")
"""What `rate_limits.updated` may name."""


_HEADERS = {
    name: tuple(f"x-ratelimit-{what}-{name}" for what in ("limit", "remaining", "reset"))
    for name in (REQUESTS, *NAMES.values())
}


class Left(NamedTuple):
    name: str
    limit: int
    remaining: int
    reset_s: int
    """Until all of it can be used again."""


def standings(accounts: Sequence[Account], now: Now, rest_of_day_s: int) -> list[Left]:
    nearest: dict[str, Left] = {}
    for account in accounts:
        for it in _standings(account, now, rest_of_day_s):
            known = nearest.get(it.name)
            if known is None or it.remaining < known.remaining:
                nearest[it.name] = it
    return list(nearest.values())


def _standings(account: Account, now: Now, rest_of_day_s: int) -> Iterator[Left]:
    if most := account.most_requests(now):
        left = int(max(0.0, most - account.requests.used(now.at)))
        yield Left(REQUESTS, most, left, account.requests.reset_s(now.at))
    for what, name in NAMES.items():
        if most := account.quota(what):
            yield Left(name, most, int(account.days[what].left(most, now.day)), rest_of_day_s)


def headers(found: Sequence[Left]) -> dict[str, str]:
    named: dict[str, str] = {}
    for it in found:
        limit, remaining, reset = _HEADERS[it.name]
        named[limit] = str(it.limit)
        named[remaining] = str(it.remaining)
        named[reset] = duration(it.reset_s)
    return named


def rate_limits(found: Sequence[Left]) -> list[dict[str, Any]]:
    """In the shape of OpenAI's event."""
    return [
        {
            "name": it.name,
            "limit": it.limit,
            "remaining": it.remaining,
            "reset_seconds": float(it.reset_s),
        }
        for it in found
        if it.name in REALTIME
    ]


def duration(seconds: int) -> str:
    """As OpenAI writes it: 6m0s."""
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    shown = f"{hours}h" if hours else ""
    shown += f"{minutes}m" if hours or minutes else ""
    return f"{shown}{seconds}s"
