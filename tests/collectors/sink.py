"""The end of the line: takes OTLP over HTTP, decodes it as any backend would, and keeps what came."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

Attributes = dict[str, Any]
PATIENCE = 30.0
"""Seconds that a test waits for what has to arrive."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span as a backend has it.

    Attributes:
        kind: of OpenTelemetry, such as INTERNAL.
        status: UNSET, OK or ERROR.
        links: the ids of the spans that it points to.
        began: when, in nanoseconds; spans are told in this order.
        source: the attributes of the process that it came from.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    status: str
    attributes: Attributes
    links: tuple[str, ...] = ()
    began: int = 0
    scope: str = ""
    source: Attributes = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Point:
    """A number of a metric; of a histogram, how many numbers were put into it."""

    name: str
    value: float
    attributes: Attributes
    source: Attributes


@dataclass(frozen=True, slots=True)
class Log:
    """A log record."""

    event: str
    trace_id: str
    span_id: str
    attributes: Attributes
    source: Attributes


class Sink(ThreadingHTTPServer):
    """A backend for all three signals.

    Attributes:
        spans, points, logs: what has arrived, in the order of arrival.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.spans: list[Span] = []
        self.points: list[Point] = []
        self.logs: list[Log] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, path: str, body: bytes) -> None:
        """Keep what a request to *path* brings."""
        with self._changed:
            if path == "/v1/traces":
                self.spans += spans_in(body)
            elif path == "/v1/metrics":
                self.points += points_in(body)
            else:
                self.logs += logs_in(body)
            self._changed.notify_all()

    def until(self, there: Callable[[Sink], bool]) -> bool:
        """Wait until *there* is true of what has arrived; tell whether it came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: there(self), PATIENCE)


class Taking(BaseHTTPRequestHandler):
    """Takes one batch."""

    server: Sink

    def do_POST(self) -> None:
        """Decode the batch and say that it is here."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(self.path, body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def listening() -> Iterator[Sink]:
    """Listen for as long as the block lasts."""
    with Sink() as sink:
        serving = threading.Thread(target=sink.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        yield sink
        sink.shutdown()
        serving.join()


def spans_in(body: bytes) -> Iterator[Span]:
    """Decode a batch of spans."""
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        source = attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                    attributes(span.attributes),
                    tuple(link.span_id.hex() for link in span.links),
                    span.start_time_unix_nano,
                    scope.scope.name,
                    source,
                )


def points_in(body: bytes) -> Iterator[Point]:
    """Decode a batch of metrics."""
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        source = attributes(resource.resource.attributes)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                shape = str(metric.WhichOneof("data"))
                for point in getattr(metric, shape).data_points:
                    value = point.count if shape == "histogram" else point.as_double or point.as_int
                    yield Point(metric.name, float(value), attributes(point.attributes), source)


def logs_in(body: bytes) -> Iterator[Log]:
    """Decode a batch of log records."""
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        source = attributes(resource.resource.attributes)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield Log(
                    record.event_name,
                    record.trace_id.hex(),
                    record.span_id.hex(),
                    attributes(record.attributes),
                    source,
                )


def attributes(pairs: Iterable[Any]) -> Attributes:
    """Read attributes as plain values; a list stays as it came."""
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
