"""`pip install voxray` alone can be tried: what is not installed of a profile is simulated."""

from typing import Any

from serve_app.config import Config
from serve_app.extras import ENGINES, MissingExtra, is_installed


def simulated(config: Config) -> dict[str, str]:
    """Each kind of engine that has to be simulated, and why, in words.

    Raises `MissingExtra` for an engine that the configuration names itself.
    """
    reasons = {}
    for kind, (name, leaf) in config.engines.items():
        extra = ENGINES.get(name)
        if not extra or is_installed(extra):
            continue
        missing = MissingExtra(extra)
        if leaf.engine:
            raise missing
        reasons[kind] = f"the {kind} is only simulated. {missing.message}"
    return reasons


def with_simulated(args: dict[str, Any], kinds: dict[str, str]) -> dict[str, Any]:
    return args | {kind: (args.get(kind) or {}) | {"engine": "sim"} for kind in kinds}
