"""The options of `voxray storage`."""

import typer

from serve_app.cli.options import AsJson, ConfigFile

storage_app = typer.Typer(no_args_is_help=True, help="The keys that encrypt what is stored.")


@storage_app.command()
def status(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show how much is encrypted with which key."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.storage import show_status

    show_status(config_file(config), as_json)


@storage_app.command("rotate-key")
def rotate_key(config: ConfigFile = None) -> None:
    """Encrypt everything with the first of the configured keys; then the others can be removed.

    Recordings are not touched, only the keys that encrypt them. The server may run, if it was
    started with the same keys. If it is stopped, start it again.

    Exit code 1: something is encrypted with a key that is not configured, or is damaged.
    """
    from serve_app.cli.config_file import config_file
    from serve_app.cli.storage import rotate

    rotate(config_file(config))
