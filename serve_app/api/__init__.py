"""Routes, one file a family. A route parses, calls, renders; `create_app` puts them together."""

from serve_app.api.application import create_app
from serve_app.api.backend import Backend
from serve_app.api.drain import Drain

__all__ = ["Backend", "Drain", "create_app"]
