"""The configuration: one frozen tree, filled once from `args` in serve_config.yaml."""

from serve_app.config.root import *  # noqa: F403
