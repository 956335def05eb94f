"""Routes, one file a family. A route parses, calls, renders; `create_app` puts them together."""

from serve_app.api.application import Models, create_app

__all__ = ["Models", "create_app"]
