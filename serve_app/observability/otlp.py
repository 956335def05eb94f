"""Records spans with the OpenTelemetry SDK, which sends them in the background, over OTLP/HTTP.

The standard variables configure it: without `OTEL_EXPORTER_OTLP_ENDPOINT` (or the one for traces)
nothing of OpenTelemetry is imported. The SDK queues at most `OTEL_BSP_MAX_QUEUE_SIZE` spans; while
the collector is away, newer ones are dropped.
"""

import time
from collections.abc import Mapping
from typing import Any

from serve_app.extras import OTEL, module_of
from serve_app.observability.trace import Trace, new_trace
from serve_app.observability.tracing import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_configured(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environment.get(name) for name in ENDPOINTS)


class OtlpRecorder:
    """A `tracing.Recorder`. Raises `MissingExtra`."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        exporters = module_of(OTEL)
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = Resource.create({"service.name": "voxray", **resource})
        detected = Resource.create({})  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        if "unknown_service" not in str(detected.attributes["service.name"]):
            named = named.merge(detected)
        self._resource = named
        self._sampler = TracerProvider(resource=named, shutdown_on_exit=False).sampler
        self._processor = BatchSpanProcessor(exporters.OTLPSpanExporter())
        self._epoch_s = time.time() - time.monotonic()

    def begin(self, parent: Trace | None, trace_id: str = "") -> Trace:
        if parent:
            return parent.child()
        trace = new_trace(trace_id)
        decision = self._sampler.should_sample(None, int(trace.trace_id, 16), "voxray").decision
        return trace._replace(sampled=decision.is_sampled())  # type: ignore[no-untyped-call]

    def record(self, span: Span) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._processor.on_end(
            ReadableSpan(
                span.name,
                _context(span.trace),
                _context(span.parent) if span.parent else None,
                self._resource,
                {name: value for name, value in span.attributes.items() if value != ""},
                kind=SpanKind.SERVER if span.serves else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
                start_time=self._ns(span.began),
                end_time=self._ns(span.ended),
            )
        )

    def stop(self) -> None:
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _ns(self, at: float) -> int:
        return int((self._epoch_s + at) * 1e9)


def _context(trace: Trace) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        int(trace.trace_id, 16), int(trace.span_id, 16), False, TraceFlags(int(trace.sampled))
    )
