"""What a client talks to: sockets, REST, sessions, and the way from them to the models."""

__version__ = "0.2.0"
"""The only place where voxray's version is written; `pyproject.toml` reads it from here."""
