"""The configuration of recordings: storage, webhooks, jobs."""

import os
from pathlib import Path

from pydantic import Field

from serve_app.config.limits import Scale
from serve_app.config.model import ConfigModel


class StorageConfig(ConfigModel):
    """Where recordings and their results are kept."""

    directory: str = Field(
        "", description="Of the default database and objects; empty: `~/.local/share/voxray`."
    )
    database_variable: str = Field(
        "VOXRAY_DATABASE_URL",
        description="The environment variable with the URL of a PostgreSQL database, as "
        "`postgresql+asyncpg://user:password@host/voxray`; unset: SQLite in `directory`.",
    )
    objects: str = Field(
        "",
        description="`s3://bucket/prefix`, `gs://bucket/prefix` or a folder; empty: in "
        "`directory`. Credentials come from the environment, under AWS's and Google's names.",
    )
    encrypt: bool = Field(False, description="Seal audio and results with AES-256-GCM.")
    key_variable: str = Field(
        "VOXRAY_STORAGE_KEY",
        description="The environment variable with the key, 32 bytes in base64.",
    )
    key_file: str = Field("", description="A file with that key, instead.")

    @property
    def folder(self) -> Path:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(self.directory or f"{home}/voxray").expanduser().absolute()

    @property
    def database_url(self) -> str:
        lite = f"sqlite+aiosqlite:///{self.folder / 'voxray.db'}"
        return os.environ.get(self.database_variable) or lite

    @property
    def objects_url(self) -> str:
        return self.objects or str(self.folder / "objects")


class WebhookConfig(ConfigModel):
    """Calls to whoever waits for a job."""

    secret_variable: str = Field(
        "VOXRAY_WEBHOOK_SECRET",
        description="The environment variable with the signing secret, `whsec_` and base64.",
    )
    timeout_s: float = Field(10.0, gt=0, description="Seconds for one call.")
    max_attempts: int = Field(8, ge=1, description="Calls at most; then the webhook is dead.")
    retry_backoff_s: float = Field(
        5.0, gt=0, description="Seconds to the second try; doubled each time."
    )
    allow_private: bool = Field(
        False, description="Webhooks may lead to loopback and private addresses."
    )


class JobsConfig(ConfigModel):
    """Recordings that are transcribed in the background."""

    max_upload_bytes: int = Field(
        524_288_000, ge=1, description="Bytes of a recording sent to POST /v1/jobs."
    )
    max_uploads: int = Field(16, ge=1, description="Uploads at once on one Ingress replica.")
    upload_timeout_s: float = Field(3600.0, gt=0, description="Seconds an upload may take.")
    max_audio_s: float = Field(43_200.0, gt=0, description="Seconds of audio in one recording.")
    decode_timeout_s: float = Field(
        600.0, gt=0, description="Seconds of processor time for decoding a recording once."
    )
    max_waiting: int = Field(1000, ge=1, description="Jobs of one tenant that may wait.")
    max_watchers: int = Field(256, ge=1, description="Event streams of one Ingress replica.")
    windows_at_once: int = Field(
        2, ge=1, description="Windows of a job at work on each Transcriber replica."
    )
    window_timeout_s: float = Field(600.0, gt=0, description="Seconds for one window.")
    lease_s: float = Field(
        15.0, gt=0.5, description="Seconds after which a silent worker's job is another's."
    )
    poll_s: float = Field(0.5, gt=0, description="Seconds between looks at the queue.")
    max_attempts: int = Field(6, ge=1, description="Tries of a job for failures that may pass.")
    retry_backoff_s: float = Field(
        2.0, gt=0, description="Seconds to the second try; doubled each time."
    )
    retention_s: float = Field(
        2_592_000.0, gt=0, description="Seconds after its end when a job and its files are deleted."
    )
    cache_entries: int = Field(
        1000,
        ge=0,
        description="Results that a tenant's same audio is answered with; 0: off.",
    )
    webhook: WebhookConfig = WebhookConfig()
    scale: Scale = Scale(sessions_per_replica=2, downscale_delay_s=60.0)
