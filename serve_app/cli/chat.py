"""`voxray chat`: a conversation in writing."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx

from serve_app.cli import DONE, FAILED, NO_SERVER, complain, console, refusal

Messages = list[dict[str, str]]


class Refused(Exception):
    """The server answered, but not with a reply."""


def chat(server: str, text: str | None) -> int:
    """One reply to `text`, or a conversation with whoever types; Ctrl-D ends it."""
    messages: Messages = []
    try:
        for said in [text] if text else _typed():
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": _print(_reply(server, messages))})
    except Refused as error:
        complain(str(error))
        return FAILED
    except httpx.HTTPError:
        complain(f"no voxray server at {server}: start one with `voxray run`")
        return NO_SERVER
    except KeyboardInterrupt:
        pass
    return DONE


def _typed() -> Iterator[str]:
    if sys.stdin.isatty():
        console.print("[dim]say something; Ctrl-D ends[/]")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _reply(server: str, messages: Messages) -> Iterator[str]:
    body: dict[str, Any] = {"messages": messages, "stream": True}
    with httpx.stream("POST", f"{server}/v1/chat/completions", json=body, timeout=120) as answer:
        if answer.status_code != 200:
            answer.read()
            raise Refused(refusal(answer))
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield from _delta(json.loads(line.removeprefix("data: ")))


def _delta(chunk: dict[str, Any]) -> Iterator[str]:
    if "error" in chunk:
        raise Refused(chunk["error"]["message"])
    for choice in chunk["choices"]:
        if text := choice["delta"].get("content"):
            yield text


def _print(pieces: Iterator[str]) -> str:
    said = ""
    for piece in pieces:
        said += piece
        print(piece, end="", flush=True)
    print()
    return said
