"""`GET /`: the web page, and `GET /web/…`: the files that browsers load from here.

Browsers keep the files and ask each time whether they have changed (ETag). Nothing comes from other
hosts, so the page works without the internet.
"""

import base64
import gzip
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

FOLDER = Path(str(files("serve_app") / "web"))

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".LICENSE": "text/plain; charset=utf-8",
}

WAVEFORM_STYLE = "'sha256-Y/8t1dAKa3ay+RZEiEFEDr8dFiQhpaFvYXXUfT3p6ZU='"
"""Of the `<style>` that wavesurfer.js makes for a waveform of 96 px in parts/waveform.js."""

CSP = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
    f"style-src 'self' {WAVEFORM_STYLE}; img-src 'self' data: blob:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PERMISSIONS = "microphone=(self), display-capture=(self), camera=(), geolocation=()"


def install(app: FastAPI) -> None:
    app.mount("/web", file, "web")
    routes = APIRouter(include_in_schema=False)
    routes.get("/")(page)
    app.include_router(routes)


def page(request: Request) -> Response:
    answer = _answer(request, FOLDER / "index.html")
    answer.headers["Content-Security-Policy"] = CSP
    answer.headers["Permissions-Policy"] = PERMISSIONS
    return answer


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application. 404 for what is not a file of the page."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        raise HTTPException(405)
    answer = _answer(Request(scope), FOLDER / scope["path"].removeprefix(f"{scope['root_path']}/"))
    await answer(scope, receive, send)


class Content(NamedTuple):
    plain: bytes
    compressed: bytes
    tag: str
    """The `ETag`."""


def _answer(request: Request, path: Path) -> Response:
    content = _content(path)
    headers = {"ETag": content.tag, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
    if content.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(content.compressed, media_type=TYPES[path.suffix], headers=headers)
    return Response(content.plain, media_type=TYPES[path.suffix], headers=headers)


@cache
def _content(path: Path) -> Content:
    """Read, compressed and hashed once. Raises `HTTPException` 404."""
    if path.suffix not in TYPES or FOLDER not in path.resolve().parents or not path.is_file():
        raise HTTPException(404)
    plain = path.read_bytes()
    tag = base64.urlsafe_b64encode(hashlib.sha256(plain).digest()[:15]).decode()
    return Content(plain, gzip.compress(plain, mtime=0), f'"{tag}"')
