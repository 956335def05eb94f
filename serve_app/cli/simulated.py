"""The profile `cpu` runs without its extras: an engine that is not installed is simulated."""

from typing import Any

from serve_app.config import Config
from serve_app.extras import ENGINES, MissingExtra, is_installed


def simulated(config: Config) -> dict[str, str]:
    """Each kind of engine that is simulated because its package is missing, and a warning.

    Raises `MissingExtra` for an engine that the configuration names, and in the profile `gpu`:
    an explicit choice must not become a simulation.
    """
    warnings = {}
    for kind, (name, leaf) in config.engines.items():
        extra = ENGINES.get(name)
        if not extra or is_installed(extra):
            continue
        missing = MissingExtra(extra)
        if leaf.engine or config.profile != "cpu":
            raise missing
        warnings[kind] = f"the {kind} is simulated: {missing.message}"
    return warnings


def with_simulated(args: dict[str, Any], kinds: dict[str, str]) -> dict[str, Any]:
    return args | {kind: (args.get(kind) or {}) | {"engine": "sim"} for kind in kinds}
