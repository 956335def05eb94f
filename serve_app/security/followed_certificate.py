"""TLS for a socket that listens, whose files may change while it does.

Beside HAProxy's own follower (`cluster/certificate.py`), by the same rules: new connections get the
new certificate, open ones go on, and files that cannot be used change nothing.
"""

import asyncio
import logging
import ssl

from serve_app.security.certificates import (
    TlsFiles,
    WrongCertificate,
    bare_context,
    checked,
    context,
    now,
)

log = logging.getLogger("voxray.tls")

CHECK_S = 2.0


class FollowedCertificate:
    """`context` is for the socket. Until there are files that can be used, handshakes fail."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen: object = None
        self._newest: ssl.SSLContext | None = None
        self.expires_at = 0.0
        """When the certificate in use does, in seconds since 1970."""
        self.context = bare_context(files)
        self.context.sni_callback = self._use_newest
        self._look()

    def _use_newest(self, connection: ssl.SSLObject, *_: object) -> int | None:
        """OpenSSL asks at each handshake, also where the client names no host."""
        if self._newest is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._newest
        return None

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        if (content := self._read()) == self._seen:
            return
        self._seen = content
        try:
            certificate = checked(self._files, now())
            self._newest = context(self._files)
        except WrongCertificate:
            log.warning("certificate_refused")
        else:
            self.expires_at = certificate.not_valid_after_utc.timestamp()
            log.info("certificate_loaded")

    def _read(self) -> object:
        """What is in the files; why they cannot be read counts as a content, too."""
        try:
            return self._files.read()
        except WrongCertificate as error:
            return str(error)
