"""How long something lasts, as people write it: `90d`, `12h`, `30m`, `45s`, `never`. Pure."""

import re

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MOST_S = 100 * 365 * 86_400
NEVER = "never"

_FORM = re.compile(r"([0-9]{1,9})([smhd])")


def seconds_of(text: str) -> float:
    """Raises `ValueError`."""
    found = _FORM.fullmatch(text.strip())
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MOST_S:
        raise ValueError(f"{text!r} is no duration such as 90d, 12h, 30m or 45s")
    return float(seconds)


def seconds_or_never(text: str) -> float | None:
    """None for `never`. Raises `ValueError`."""
    return None if text == NEVER else seconds_of(text)
