"""Whether a server may start as it is configured, by who can reach it and who needs a key."""

from collections.abc import Sequence

from serve_app.cli import Failure, console
from serve_app.config import Config


def check_access(config: Config, reachable: Sequence[str], insecure: bool) -> None:
    """`reachable`: the addresses that listen to other machines.

    Says who needs a key. Raises `Failure` if others could use the server without one.
    """
    if config.auth.required:
        console.print("clients need a key: docs/keys.md")
    elif not reachable:
        console.print("no key is needed, because only this machine can connect")
    elif not insecure:
        raise Failure(_refusal(config, reachable))
    for address in reachable if not config.auth.required else ():
        console.print(
            f"[yellow]warning: {address} can be reached from other machines, and no key is needed: "
            "anyone who reaches it can use it"
        )


def _refusal(config: Config, reachable: Sequence[str]) -> str:
    variable = config.auth.key_variable
    return (
        f"{' and '.join(reachable)} can be reached from other machines, so clients must need a "
        f'key. Set one: export {variable}="$(openssl rand -hex 32)". Or set `auth: keys` and make '
        "keys with `voxray keys`, or configure auth.key_file or auth.jwt. In a network that you "
        "trust: --insecure"
    )
