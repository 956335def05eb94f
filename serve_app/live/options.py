"""What a client may ask of the recogniser, whatever the dialect it asks in. Pure."""

from deployments.interfaces import SpeechOptions
from serve_app.config import Limits
from serve_app.errors import ClientError


def check_options(
    options: SpeechOptions, engine: str, languages: tuple[str, ...] | None, limits: Limits
) -> None:
    """Raises `ClientError` for what the engine cannot do or the limits do not allow."""
    _check_language(options.language, engine, languages)
    if len(options.hotwords) > limits.max_hotwords:
        raise ClientError(
            "too_many_hotwords",
            f"{len(options.hotwords)} hotwords; at most {limits.max_hotwords} are allowed",
        )
    if len((options.grammar or "").encode()) > limits.max_grammar_bytes:
        raise ClientError(
            "grammar_too_large", f"a grammar has at most {limits.max_grammar_bytes} bytes"
        )


def _check_language(language: str | None, engine: str, known: tuple[str, ...] | None) -> None:
    primary = (language or "").split("-")[0].lower()
    if primary and known is not None and primary not in known:
        raise ClientError(
            "unsupported_language",
            f"engine {engine} does not know language {repr(language)[:40]}, only "
            f"{', '.join(known)}",
        )
