"""The errors of who has reached a limit. Pure."""

from serve_app.errors import ClientError
from serve_app.limits.account import QUOTAS, Account, Now, Open
from serve_app.usage.meter import Counted

UNITS = {
    Counted.AUDIO: "seconds of audio",
    Counted.CHARACTERS: "characters of speech",
    Counted.TOKENS: "tokens",
}


def too_fast(account: Account, now: Now) -> ClientError:
    wait_s = max(1, account.requests.wait_s(account.most_requests(now), now.at))
    most = account.limits.requests_per_minute
    reason = f"requests_per_minute: {whose(account)} may send {most} requests a minute"
    return ClientError("rate_limit_exceeded", f"{reason}; retry in {wait_s} s", wait_s)


def too_many_open(account: Account, kind: Open, retry_after_s: int) -> ClientError:
    most = getattr(account.limits, kind)
    reason = f"{kind}: {whose(account)} may have {most} {kind} open; close one, or retry later"
    return ClientError("rate_limit_exceeded", reason, retry_after_s)


def spent(account: Account, what: Counted, now: Now, rest_of_day_s: int) -> ClientError:
    """`rest_of_day_s`: seconds until the next day begins."""
    most = account.quota(what)
    reason = f"{QUOTAS[what]}: {whose(account)} may use {most} {UNITS[what]} a day"
    free = int(account.days[what].free(most, now.day))
    left = f"{free} are left" if free else "nothing is left"
    return ClientError(
        "quota_exceeded", f"{reason}, and {left}; the next day begins at 0:00 UTC", rest_of_day_s
    )


def whose(account: Account) -> str:
    return "this key" if account.key else "this tenant"
