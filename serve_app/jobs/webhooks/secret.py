"""The secret that signs webhooks, read from the environment."""

import base64
import binascii
import os

from serve_app.config import WebhookConfig

PREFIX = "whsec_"


def secret_of(config: WebhookConfig) -> bytes | None:
    """None if it is not set. Raises `ValueError` if it is invalid."""
    text = os.environ.get(config.secret_variable, "")
    if not text:
        return None
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{config.secret_variable} must be {PREFIX} followed by base64") from error
