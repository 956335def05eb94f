"""The TCP port: messages of a 4-byte big-endian length and JSON, an `audio` answered by a `result`.

The messages are those of `WS /ws`; the turn behind them is the same. A connection has one
conversation, its messages are answered one after the other. Where a key is needed, the first one is
`{"type": "auth", "key": KEY}`. Off unless configured; several ingress replicas of a node share the
port. With TLS where HAProxy has it, too.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import Any

from deployments.framing import FrameTooLong, frame, read_length
from serve_app.api.backend import Backend
from serve_app.api.sockets.conversation_socket import decoded, new_dialect
from serve_app.config import TcpConfig
from serve_app.conversation.driver import Conversation, ConversationEvent, Conversations
from serve_app.dialects.conversation import ResultDialect, Undecoded
from serve_app.dialects.frames import ImmediateAnswer, json_object
from serve_app.errors import ClientError, key_revoked
from serve_app.identity.gate import Arrival, Gate
from serve_app.identity.principal import Principal
from serve_app.identity.routes import SOCKETS, TCP
from serve_app.live.events import Close, ErrorReport
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin, origin_of
from serve_app.security.served_addresses import ServedAddresses

log = logging.getLogger("voxray.tcp")

LOGIN_S = 10.0
"""How long a connection may stay without a key that it needs."""

MAX_AUTH_BYTES = 16 << 10
AUTHENTICATED = b'{"type":"authenticated"}'


class TcpPort:
    """Serves until cancelled."""

    def __init__(
        self,
        config: TcpConfig,
        backend: Backend,
        gate: Gate,
        conversations: Conversations,
        metrics: Metrics,
        drain_begun: asyncio.Event,
        addresses: ServedAddresses,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._config = config
        self._addresses = addresses
        self._tls = tls
        self._drain_begun = drain_begun
        self._backend = backend
        self._gate = gate
        self._conversations = conversations
        self._metrics = metrics
        self._connections = 0

    async def run(self) -> None:
        """Accept connections until the drain; open ones go on."""
        server = await asyncio.start_server(
            self._serve,
            sock=self._socket(),
            ssl=self._tls,
            ssl_handshake_timeout=LOGIN_S if self._tls else None,
        )
        try:
            await self._drain_begun.wait()
        finally:
            server.close()

    def _socket(self) -> socket.socket:
        """Shared with the other replicas of the node: the kernel distributes connections."""
        family = socket.AF_INET6 if ":" in self._config.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((self._config.host, self._config.port))
        return listening

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(
            self._conversations, self._backend, self._gate, self._metrics, writer
        )
        self._connections += 1
        self._metrics.active_connections += 1
        try:
            self._check_address(writer)
            if self._connections > self._config.max_connections:
                raise ClientError("too_many_conversations", "too many connections; retry later")
            await self._begin(reader, connection)
            await self._converse(reader, connection)
        except ClientError as error:  # one that ends the connection
            with contextlib.suppress(OSError):
                await connection.refuse(error)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has disconnected or does not read
        except Exception:
            log.exception("connection_failed", extra=connection.origin.ids())
        finally:
            self._connections -= 1
            self._metrics.active_connections -= 1
            connection.close()
            writer.close()

    def _check_address(self, writer: asyncio.StreamWriter) -> None:
        """Raises `ClientError`."""
        client, here = (writer.get_extra_info(it)[0] for it in ("peername", "sockname"))
        if not self._addresses.serves(client, here):
            raise ClientError("address_not_allowed", "this address is not served")

    async def _begin(self, reader: asyncio.StreamReader, connection: "_Connection") -> None:
        """Where a key is needed, it must come first, and soon. Raises `ClientError`."""
        if not self._gate.needs_keys:
            return connection.open(self._gate.caller(SOCKETS[TCP], Arrival({})))
        message = await self._read(reader, LOGIN_S)
        came = Arrival({}, "", connection.peer, (auth_key(message or b"") or "",))
        connection.open(await self._gate.admitted(SOCKETS[TCP], came))
        await connection.authenticated()

    async def _converse(self, reader: asyncio.StreamReader, connection: "_Connection") -> None:
        idle_s = self._conversations.config.idle_timeout_s
        while (message := await self._read(reader, idle_s)) is not None:
            await connection.answer(message)

    async def _read(self, reader: asyncio.StreamReader, idle_s: float) -> bytes | None:
        """The next message; None at the end. Raises `ClientError` for a length or pace that is
        not allowed: the rest of the stream cannot be read then."""
        longest = self._conversations.sessions.limits.max_event_bytes
        try:
            async with asyncio.timeout(idle_s):
                length = await read_length(reader, longest)
        except FrameTooLong as error:
            raise _wrong_length(error.length, longest) from error
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise
            return None
        except TimeoutError as error:
            raise ClientError("idle_timeout", f"no message for {idle_s:g} s") from error
        if not length:
            raise _wrong_length(length, longest)
        return await self._body(reader, length)

    async def _body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        timeout_s = self._config.read_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.readexactly(length)
        except TimeoutError as error:
            raise ClientError(
                "idle_timeout", f"the message did not arrive within {timeout_s:g} s"
            ) from error


def auth_key(message: bytes) -> str | None:
    """The key of an `auth` message; None for another message."""
    if len(message) > MAX_AUTH_BYTES:
        return None
    try:
        fields = json_object(message.decode())
    except (ClientError, UnicodeDecodeError):
        return None
    key = fields.get("key")
    return key if fields.get("type") == "auth" and isinstance(key, str) else None


def _wrong_length(length: int, longest: int) -> ClientError:
    return ClientError(
        "message_too_large", f"the message has {length} bytes; allowed are 1 to {longest}"
    )


class _Connection:
    """One client and its conversation."""

    def __init__(
        self,
        conversations: Conversations,
        backend: Backend,
        gate: Gate,
        metrics: Metrics,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._conversations = conversations
        self._gate = gate
        self._metrics = metrics
        self._writer = writer
        self._dialect = new_dialect(ResultDialect, backend, conversations)
        self._conversation: Conversation | None = None
        self.origin = Origin()
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answering = self._over = False

    @property
    def peer(self) -> str:
        return str((self._writer.get_extra_info("peername") or ("",))[0])

    def open(self, caller: Principal) -> None:
        dialect = self._dialect
        self.origin = origin_of(caller, {}, "tcp", dialect.session_id)
        self._conversation = self._conversations.open(
            self._on_event,
            self._on_abandoned,
            dialect.settings,
            dialect.listening,
            dialect.prefix,
            origin=self.origin,
        )

    def close(self) -> None:
        if self._conversation:
            self._conversations.close(self._conversation)
            self._conversation = None

    async def authenticated(self) -> None:
        await self._send(AUTHENTICATED)

    async def answer(self, message: bytes) -> None:
        """Every message gets one answer."""
        self._answering = True
        try:
            await self._answer(message)
        finally:
            self._answering = False
        if self._over:
            raise ConnectionResetError("the conversation has ended")

    async def _answer(self, message: bytes) -> None:
        if not self._gate.needs_keys and auth_key(message) is not None:
            return await self.authenticated()
        try:
            facts = self._dialect.parse(message)
            for fact in facts:
                if isinstance(fact, Undecoded):
                    facts = [*facts, *self._dialect.on_audio(await decoded(fact.file))]
            for fact in facts:
                self._do(fact)
            await self._send(await self._next())
        except ClientError as error:
            if error.close is not None:
                raise
            await self.refuse(error)

    async def refuse(self, error: ClientError) -> None:
        self._metrics.count_error(error.code)
        await self._send(self._dialect.error(error))

    def _do(self, fact: Any) -> None:
        if isinstance(fact, ImmediateAnswer):
            self._answers.put_nowait(fact.frame)
        elif not isinstance(fact, Undecoded):
            assert self._conversation
            self._conversation.feed(fact)

    async def _next(self) -> bytes:
        answer = await self._answers.get()
        if answer is None:
            raise ConnectionResetError("the conversation has ended")
        return answer

    async def _send(self, message: bytes) -> None:
        """Raises `TimeoutError` for a client that does not read."""
        self._writer.write(frame(message))
        async with asyncio.timeout(self._conversations.sessions.limits.client_write_timeout_s):
            await self._writer.drain()

    def _on_event(self, event: ConversationEvent) -> None:
        for message in self._dialect.render(event):
            self._answers.put_nowait(message)
        if isinstance(event, ErrorReport) and event.error.code == key_revoked().code:
            self._writer.write(frame(self._dialect.error(event.error)))
        if isinstance(event, Close):
            self._end()

    def _end(self) -> None:
        self._answers.put_nowait(None)
        self._over = True
        if not self._answering:
            self._writer.close()

    def _on_abandoned(self, code: str) -> None:
        self._metrics.count_error(code)
        self._end()
