"""An identity provider for tests: keys made on the spot, tokens, and a server with its key set."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from serve_app.config.auth import JwtConfig

ISSUER, AUDIENCE = "https://id.example/", "voxray"
ALGORITHMS = ("RS256", "ES256")

MAKE: dict[str, Callable[[], Any]] = {
    "RS": lambda: rsa.generate_private_key(65537, 2048),
    "PS": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@cache
def private_key(algorithm: str, kid: str = "k1") -> Any:
    return (MAKE.get(algorithm) or MAKE[algorithm[:2]])()


def public_jwk(algorithm: str, kid: str = "k1", **changed: Any) -> dict[str, Any]:
    """An entry of the key set; `None` takes a field away."""
    public = private_key(algorithm, kid).public_key()
    made = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(public))
    fields = {**made, "kid": kid, "alg": algorithm, "use": "sig", **changed}
    return {name: value for name, value in fields.items() if value is not None}


def key_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Of a token that is valid; `None` takes a claim away."""
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "iat": int(time.time()),
        "exp": int(time.time()) + 600,
        "tenant": "acme",
        "scope": "openid voxray:transcribe voxray:jobs",
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(
    body: dict[str, Any], algorithm: str = "RS256", kid: str | None = "k1", **header: Any
) -> str:
    headers = ({"kid": kid} if kid is not None else {}) | header
    return jwt.encode(body, private_key(algorithm, kid or "k1"), algorithm, headers)


def token(algorithm: str = "RS256", kid: str | None = "k1", **changed: Any) -> str:
    return signed(claims(**changed), algorithm, kid)


def part(value: Any) -> str:
    """A part of a token, as its maker wants it."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def in_file(folder: Path, body: bytes | None = None, **changed: Any) -> JwtConfig:
    """With the key set in a file."""
    file = folder / "jwks.json"
    file.write_bytes(body or key_set(public_jwk("RS256"), public_jwk("ES256", "k2")))
    return JwtConfig(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(file), **changed})


class Provider:
    """Answers every request with `status`, `headers` and `body`, and counts them."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/jwks"
        self.body = key_set(public_jwk("RS256"))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def config(self) -> JwtConfig:
        return JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks=self.url)


@contextmanager
def provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.asked.append(self.path)
            self.send_response(here.status)
            for name, value in {"content-length": str(len(here.body)), **here.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(here.body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Provider(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield here
        finally:
            server.shutdown()
            thread.join()
