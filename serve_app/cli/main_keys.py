"""The options of `voxray keys`."""

from typing import Annotated

import typer

from serve_app.cli.options import AsJson, ConfigFile

keys_app = typer.Typer(
    no_args_is_help=True,
    help="Keys of clients, for servers with `auth: keys`. Works on the database itself.",
)

USER = "transcribe,speak,chat,realtime,jobs"
"""Who may do everything must be said: `admin` sees all tenants."""

Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id, or the key itself.")]
EXPIRES = "Validity, as 90d or 12h; or `never`."


@keys_app.command()
def create(
    tenant: Annotated[
        str, typer.Option(metavar="NAME", help="Whose jobs, files and usage it is for.")
    ] = "default",
    scopes: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What it may do, separated by commas; also `admin`, of all tenants.",
        ),
    ] = USER,
    expires: Annotated[str, typer.Option(metavar="TIME", help=EXPIRES)] = "never",
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="What you will know it by, in `list`.")
    ] = "",
    config: ConfigFile = None,
) -> None:
    """Make a key and print it on stdout. It cannot be shown again."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.keys import create_key, order

    create_key(config_file(config), order(tenant, scopes, expires, name))


@keys_app.command("list")
def list_keys(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List all keys: whose they are, what they may do, until when, when they were last used."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.keys import list_keys as show

    show(config_file(config), as_json)


@keys_app.command()
def revoke(id_: Id, config: ConfigFile = None) -> None:
    """End a key. Servers refuse it within seconds, and close its live connections."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.keys import revoke_key

    revoke_key(config_file(config), id_)


@keys_app.command()
def rotate(
    id_: Id,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key stays valid.")
    ] = "24h",
    expires: Annotated[
        str, typer.Option(metavar="TIME", help=f"{EXPIRES} Default: as long as the old one.")
    ] = "",
    config: ConfigFile = None,
) -> None:
    """Make a key that may do the same, print it on stdout, and let the old one expire."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.keys import rotate_key

    rotate_key(config_file(config), id_, overlap, expires)
