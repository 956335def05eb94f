"""Conversation items of the OpenAI Realtime dialect, in and out. Pure."""

from typing import Any

from serve_app.config import Limits
from serve_app.conversation.history import Item
from serve_app.errors import ClientError

KINDS = ("message", "function_call", "function_call_output")
TEXT_PARTS = ("input_text", "output_text", "text")
AUDIO_PARTS = ("input_audio", "output_audio", "audio")


def parse_item(item: Any, limits: Limits) -> Item:
    """A client's item; its id is "" if the client gave none. Raises `ClientError`."""
    if not isinstance(item, dict):
        raise ClientError("missing_required_parameter", "item must be an object")
    id_ = _text(item, "id", 64)
    match item.get("type"):
        case "message":
            return _message(id_, item, limits)
        case "function_call":
            return Item(
                id_,
                "call",
                call_id=_text(item, "call_id", 64),
                name=_text(item, "name", 64),
                arguments=_text(item, "arguments", limits.max_item_chars),
            )
        case "function_call_output":
            call_id, text = _text(item, "call_id", 64), _text(item, "output", limits.max_item_chars)
            if not call_id:
                raise ClientError(
                    "missing_required_parameter", "item.call_id must be a string, not empty"
                )
            return Item(id_, "output", text=text, call_id=call_id)
    kinds = ", ".join(KINDS)
    raise ClientError("unsupported_content", f"item.type must be one of {kinds}")


def _text(item: dict[str, Any], field: str, longest: int) -> str:
    value = item.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ClientError("invalid_value", f"item.{field} must be a string")
    if len(value) > longest:
        raise ClientError(
            "text_too_long",
            f"item.{field} has {len(value)} characters; at most {longest} are allowed",
        )
    return value


def _message(id_: str, item: dict[str, Any], limits: Limits) -> Item:
    role = item.get("role")
    if role not in ("user", "assistant", "system"):
        raise ClientError("invalid_value", "item.role must be user, assistant or system")
    content = item.get("content") or []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ClientError("invalid_value", "item.content must be a list of objects")
    spoken = any(part.get("type") in AUDIO_PARTS for part in content)
    texts = [_part(part, limits) for part in content]
    return Item(id_, "message", role, " ".join(text for text in texts if text), spoken)


def _part(part: dict[str, Any], limits: Limits) -> str:
    """The words of a content part; of audio, only the transcript is used."""
    kind = part.get("type")
    if kind in TEXT_PARTS:
        return _text(part, "text", limits.max_item_chars)
    if kind in AUDIO_PARTS and part.get("transcript"):
        return _text(part, "transcript", limits.max_item_chars)
    if kind in AUDIO_PARTS:
        raise ClientError(
            "unsupported_content",
            f"{kind} without a transcript: send audio with input_audio_buffer.append",
        )
    kinds = ", ".join((*TEXT_PARTS, *AUDIO_PARTS))
    reason = f"content of type {str(kind)[:40]!r} is not supported; allowed: {kinds}"
    raise ClientError("unsupported_content", reason)


def render_item(item: Item) -> dict[str, Any]:
    base = {"id": item.id, "object": "realtime.item", "status": item.status}
    if item.kind == "call":
        return base | {
            "type": "function_call",
            "call_id": item.call_id,
            "name": item.name,
            "arguments": item.arguments,
        }
    if item.kind == "output":
        return base | {
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": item.text,
        }
    return base | {"type": "message", "role": item.role, "content": _content(item)}


def _content(item: Item) -> list[dict[str, Any]]:
    side = "output" if item.role == "assistant" else "input"
    text = item.text if item.heard is None else item.heard
    if item.spoken:
        if not text and item.status == "in_progress":
            return []
        return [{"type": f"{side}_audio", "transcript": text or None}]
    return [{"type": f"{side}_text", "text": text}] if text else []
