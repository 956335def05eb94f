"""The options of `voxray tenants`."""

from typing import Annotated

import typer

from serve_app.cli.options import AsJson, ConfigFile

tenants_app = typer.Typer(
    no_args_is_help=True,
    help="Limits and other settings of tenants and their keys, which override the configuration. "
    "Works on the database itself.",
)

Tenant = Annotated[str, typer.Argument(metavar="TENANT")]
Key = Annotated[str, typer.Option("--key", metavar="ID", help="Limits of this key.")]
EachKey = Annotated[bool, typer.Option("--each-key", help="Limits of each of its keys.")]


@tenants_app.command("set")
def set_settings(
    tenant: Tenant,
    assigned: Annotated[
        list[str], typer.Argument(metavar="NAME=NUMBER...", help="As sessions=50 or weight=3.")
    ],
    key: Key = "",
    each_key: EachKey = False,
    config: ConfigFile = None,
) -> None:
    """Set what is named; settings that are not named stay as they are."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.tenants import owner, settings
    from serve_app.cli.tenants import set_settings as write

    whose = owner(tenant, key, each_key)
    changed = settings(whose, assigned)
    write(config_file(config), whose, changed)


@tenants_app.command("list")
def list_settings(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List what the database has."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.tenants import list_settings as show

    show(config_file(config), as_json)


@tenants_app.command()
def show(tenant: Tenant, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what applies: the configuration's, overridden by the database's."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.tenants import show_settings

    show_settings(config_file(config), tenant, as_json)


@tenants_app.command()
def delete(
    tenant: Tenant,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Default: all.")
    ] = None,
    key: Key = "",
    each_key: EachKey = False,
    config: ConfigFile = None,
) -> None:
    """Remove settings from the database: the configuration's apply again."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.tenants import delete_settings, owner

    whose = owner(tenant, key, each_key)
    delete_settings(config_file(config), whose, names or [])
