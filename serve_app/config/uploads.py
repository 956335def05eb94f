"""The configuration of what happens to a file before it is accepted."""

import shlex

from pydantic import Field, field_validator

from serve_app.config.model import ConfigModel, Count, Seconds


class UploadsConfig(ConfigModel):
    """A command of yours that looks at each uploaded file, as a virus scanner does."""

    scan: str = Field(
        "",
        description="A command, run without a shell, that gets the file as its standard input, as "
        "`clamdscan --fdpass -`. It answers with its exit status: 0 accepts the file, 1 refuses "
        "it, and with any other the client is asked to try again. Empty: files are not scanned.",
    )
    scan_timeout_s: Seconds = Field(60.0, description="Seconds that a scan may take.")
    scans_at_once: Count = Field(
        4, description="Scans of one Ingress replica at once; further files wait."
    )

    @field_validator("scan")
    @classmethod
    def _parsable(cls, scan: str) -> str:
        shlex.split(scan)  # raises ValueError for an open quote
        return scan

    @property
    def command(self) -> list[str]:
        """Its words; none if files are not scanned."""
        return shlex.split(self.scan)
