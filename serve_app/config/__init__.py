"""The configuration: one frozen tree, filled once from `args` in serve_config.yaml."""

from serve_app.config.browser import BrowserConfig
from serve_app.config.engines import ConversationConfig, SpeakerConfig, TcpConfig
from serve_app.config.jobs import JobsConfig, StorageConfig, WebhookConfig
from serve_app.config.limits import Limits, Scale
from serve_app.config.root import Config, WorkerConfig, engine_settings
from serve_app.config.uploads import UploadsConfig

__all__ = [
    "BrowserConfig",
    "Config",
    "ConversationConfig",
    "JobsConfig",
    "Limits",
    "Scale",
    "SpeakerConfig",
    "StorageConfig",
    "TcpConfig",
    "UploadsConfig",
    "WebhookConfig",
    "WorkerConfig",
    "engine_settings",
]
