"""`voxray chat`: a conversation in writing."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from serve_app.cli import Failure, console
from serve_app.cli.rest import Rest

Messages = list[dict[str, str]]


def converse(server: str, text: str | None) -> None:
    """Print one reply to `text`, or a reply to each line that is typed."""
    rest = Rest(server)
    messages: Messages = []
    with contextlib.suppress(KeyboardInterrupt):
        for message in [text] if text else _typed():
            messages.append({"role": "user", "content": message})
            messages.append({"role": "assistant", "content": _print(_reply(rest, messages))})


def _typed() -> Iterator[str]:
    if sys.stdin.isatty():
        console.print("[dim]Type a message; Ctrl-D ends.[/]")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _reply(rest: Rest, messages: Messages) -> Iterator[str]:
    body: dict[str, Any] = {"messages": messages, "stream": True}
    with rest.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield from _delta(json.loads(line.removeprefix("data: ")))


def _delta(chunk: dict[str, Any]) -> Iterator[str]:
    if "error" in chunk:
        raise Failure(chunk["error"]["message"])
    for choice in chunk["choices"]:
        if text := choice["delta"].get("content"):
            yield text


def _print(pieces: Iterator[str]) -> str:
    reply = ""
    for piece in pieces:
        reply += piece
        print(piece, end="", flush=True)
    print()
    return reply
