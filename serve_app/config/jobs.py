"""The configuration of recordings: storage, webhooks, jobs."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from serve_app.config.limits import Scale
from serve_app.config.model import WEEK_S, Bytes, ConfigModel, Count, Seconds

Attempts = Annotated[int, Field(ge=1, le=100)]
Backoff = Annotated[float, Field(gt=0, le=3600)]


class StorageConfig(ConfigModel):
    """Where recordings and their results are kept."""

    directory: str = Field(
        "",
        description="Directory of the default database and objects; empty: "
        "`~/.local/share/voxray`.",
    )
    database_variable: str = Field(
        "VOXRAY_DATABASE_URL",
        description="The environment variable with the URL of a PostgreSQL database, as "
        "`postgresql+asyncpg://user:password@host/voxray`; unset: SQLite in `directory`.",
    )
    redis_variable: str = Field(
        "VOXRAY_REDIS_URL",
        description="The environment variable with the URL of a Redis in which all ingress "
        "replicas share what tenants use, as `redis://:password@host:6379/0`; unset: each replica "
        "counts by itself.",
    )
    objects: str = Field(
        "",
        description="`s3://bucket/prefix`, `gs://bucket/prefix` or a folder; empty: in "
        "`directory`. Credentials come from the environment, under AWS's and Google's names.",
    )
    encrypt: bool = Field(False, description="Encrypt audio and results with AES-256-GCM.")
    key_variable: str = Field(
        "VOXRAY_STORAGE_KEY",
        description="The environment variable with keys, 32 bytes in base64 each, separated by "
        "commas: the first one seals, all of them open.",
    )
    key_file: str = Field(
        "", description="A file with these keys, one a line, used instead of the variable."
    )
    usage_days: Count = Field(
        800, description="Days for which the database keeps what tenants have used."
    )

    @property
    def folder(self) -> Path:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(self.directory or f"{home}/voxray").expanduser().absolute()

    @property
    def database_url(self) -> str:
        lite = f"sqlite+aiosqlite:///{self.folder / 'voxray.db'}"
        return os.environ.get(self.database_variable) or lite

    @property
    def redis_url(self) -> str:
        """Empty if there is none."""
        return os.environ.get(self.redis_variable, "").strip()

    @property
    def objects_url(self) -> str:
        return self.objects or str(self.folder / "objects")


class WebhookConfig(ConfigModel):
    """Calls to clients that wait for a job."""

    secret_variable: str = Field(
        "VOXRAY_WEBHOOK_SECRET",
        description="The environment variable with the signing secret, `whsec_` and base64.",
    )
    timeout_s: Seconds = Field(10.0, description="Seconds for one call.")
    max_attempts: Attempts = Field(
        8, description="Calls at most; after them the webhook is given up."
    )
    retry_backoff_s: Backoff = Field(
        5.0, description="Seconds before the second attempt; doubled each time."
    )
    allow_private: bool = Field(
        False,
        description="Allow webhooks to loopback and private addresses. Link-local ones, where "
        "clouds have their metadata, are never allowed.",
    )


class JobsConfig(ConfigModel):
    """Recordings transcribed in the background."""

    max_upload_bytes: Bytes = Field(
        524_288_000, description="Bytes of a recording sent to POST /v1/jobs."
    )
    max_uploads: Count = Field(16, description="Concurrent uploads to one Ingress replica.")
    upload_timeout_s: Seconds = Field(3600.0, description="Seconds an upload may take.")
    max_audio_s: float = Field(
        43_200.0, gt=0, le=WEEK_S, description="Seconds of audio in one recording."
    )
    decode_timeout_s: Seconds = Field(
        600.0, description="Seconds of processor time for decoding a recording once."
    )
    max_waiting: Count = Field(1000, description="Waiting jobs of one tenant.")
    max_watchers: Count = Field(256, description="Event streams of one Ingress replica.")
    windows_at_once: int = Field(
        2,
        ge=1,
        le=1024,
        description="Windows of a job that each Transcriber replica works on at once.",
    )
    window_timeout_s: Seconds = Field(600.0, description="Seconds for one window.")
    lease_s: float = Field(
        15.0,
        gt=0.5,
        le=3600,
        description="Seconds without a sign of life after which a worker's job goes to another.",
    )
    poll_s: float = Field(0.5, gt=0, le=60, description="Seconds between polls of the queue.")
    max_attempts: Attempts = Field(
        6, description="Attempts at a job when failures may be temporary."
    )
    retry_backoff_s: Backoff = Field(
        2.0, description="Seconds before the second attempt; doubled each time."
    )
    retention_s: float = Field(
        2_592_000.0,
        gt=0,
        le=3_153_600_000,
        description="Seconds after its end when a job and its files are deleted.",
    )
    cache_entries: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Results kept for answering the same audio of a tenant again; 0: off.",
    )
    webhook: WebhookConfig = WebhookConfig()
    scale: Scale = Scale(sessions_per_replica=2, downscale_delay_s=60.0)
