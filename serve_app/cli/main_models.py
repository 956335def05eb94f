"""The options of `voxray models`."""

import typer

from serve_app.cli.options import ConfigFile, Profile

models_app = typer.Typer(no_args_is_help=True, help="Manage weights of the configured engines.")


@models_app.command("list")
def list_models(config: ConfigFile = None, profile: Profile = None) -> None:
    """List the weights that engines need, where they are, and the GPU memory they take."""
    from serve_app.cli.models import configured, list_weights

    list_weights(configured(config, profile))


@models_app.command()
def download(config: ConfigFile = None, profile: Profile = None) -> None:
    """Download missing weights. An interrupted download resumes."""
    from serve_app.cli.models import configured, download_weights

    download_weights(configured(config, profile))


@models_app.command()
def check(config: ConfigFile = None, profile: Profile = None) -> None:
    """Verify all weights against the hub's checksums, and that they fit the GPU."""
    from serve_app.cli.models import check_weights, configured

    check_weights(configured(config, profile))
