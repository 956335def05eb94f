"""An OpenTelemetry collector in this process: takes OTLP over HTTP and keeps the spans."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Seen(NamedTuple):
    """A span, as it was sent."""

    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, Any]
    error: str
    deployment: str


class Collector:
    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.url = ""

    def take(self, body: bytes) -> None:
        asked = ExportTraceServiceRequest.FromString(body)
        for group in asked.resource_spans:
            resource = _values(group.resource.attributes)
            assert resource["service.name"] == "voxray"
            for scope in group.scope_spans:
                self.spans += [_seen(it, resource["voxray.deployment"]) for it in scope.spans]

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: Seen) -> list[Seen]:
        return [it for it in self.spans if it.parent == span.id]


def _seen(it: Any, deployment: str) -> Seen:
    ids = (it.trace_id.hex(), it.span_id.hex(), it.parent_span_id.hex())
    times = (it.start_time_unix_nano, it.end_time_unix_nano)
    return Seen(it.name, *ids, *times, _values(it.attributes), it.status.message, deployment)


def _values(attributes: Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            zipped = self.headers.get("content-encoding") == "gzip"
            collector.take(gzip.decompress(body) if zipped else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
