"""Spans leave the process the ordinary way: through a collector that somebody else has written."""

from __future__ import annotations

import gzip
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import ROOT

AGENT = """
import sys
from decimal import Decimal
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from agentguard import ApprovalRequired, Guard, idempotent, requires_approval, tool_contract

exporter = OTLPSpanExporter(endpoint=sys.argv[1], timeout=float(sys.argv[2]))
provider = TracerProvider(resource=Resource.create({"service.name": "refunds"}))
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)

@tool_contract(effect="write")
@idempotent(key="refund:{ticket}")
@requires_approval(when="amount > 50")
def refund(ticket: str, amount: Decimal) -> str:
    return f"refunded {amount}"

guard = Guard("memory://")
with guard.run("refund_and_close_ticket", run_id="r-1"):
    print(refund("T-1", Decimal(20)))
    print(refund("T-1", Decimal(20)))
    try:
        refund("T-2", Decimal(75))
    except ApprovalRequired:
        print("waiting")
print(guard.runs.verify("r-1"))
sys.stdout.flush()
if sys.argv[3] == "flush":
    provider.shutdown()
else:
    import os
    os._exit(0)
"""


class Sink(ThreadingHTTPServer):
    """The end of the line: takes OTLP over HTTP and keeps what arrives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.arrived: queue.Queue[Any] = queue.Queue()

    def spans(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Wait for *count* spans and return their attributes by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(count):
            span = self.arrived.get(timeout=30)
            values = {a.key: a.value for a in span.attributes}
            plain = {k: getattr(v, v.WhichOneof("value")) for k, v in values.items()}
            found.setdefault(span.name, []).append(plain)
        return found


class Taking(BaseHTTPRequestHandler):
    """Takes one batch of spans."""

    server: Sink

    def do_POST(self) -> None:
        """Decode the batch, as any backend would."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.server.arrived.put(span)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(name="sink")
def sink_at_the_end() -> Iterator[Sink]:
    """A backend that is listening."""
    with Sink() as sink:
        serving = threading.Thread(target=sink.serve_forever, daemon=True)
        serving.start()
        yield sink
        sink.shutdown()
        serving.join()


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(name="collector")
def collector_of_somebody_else(sink: Sink, tmp_path: Path) -> Iterator[str]:
    """A running Rotel, a third-party OpenTelemetry collector, that hands on to the sink."""
    spec = find_spec("rotel")
    assert spec is not None
    assert spec.origin is not None
    grpc, http = free_ports(2)
    environment = {
        "ROTEL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
        "ROTEL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
        "ROTEL_EXPORTERS": "x:otlp,bh:blackhole",
        "ROTEL_EXPORTER_X_PROTOCOL": "http",
        "ROTEL_EXPORTER_X_TRACES_ENDPOINT": f"http://127.0.0.1:{sink.server_port}/v1/traces",
        "ROTEL_EXPORTERS_TRACES": "x",
        "ROTEL_EXPORTERS_METRICS": "bh",
        "ROTEL_EXPORTERS_LOGS": "bh",
        "ROTEL_PID_FILE": str(tmp_path / "rotel.pid"),
    }
    words = [str(Path(spec.origin).parent / "rotel-agent"), "start"]
    with subprocess.Popen(
        words, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        assert b"Starting Rotel" in process.stdout.readline()
        yield f"http://127.0.0.1:{http}/v1/traces"
        process.terminate()


def agent(endpoint: str, *, timeout: float, flush: bool) -> list[str]:
    """Run an agent that exports to *endpoint*, and return what it says."""
    words = [sys.executable, "-c", AGENT, endpoint, str(timeout), "flush" if flush else "leave"]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    return ended.stdout.splitlines()


SAID = ["refunded 20", "refunded 20", "waiting", "None"]


def test_spans_arrive_through_a_collector(collector: str, sink: Sink) -> None:
    """What an agent does is in the backend, by way of a collector that knows nothing of us."""
    assert agent(collector, timeout=10, flush=True) == SAID
    arrived = sink.spans(4)
    (part,) = arrived["invoke_workflow refund_and_close_ticket"]
    calls = arrived["execute_tool refund"]
    assert part["agentguard.run.outcome"] == "pending"  # a call in it waits for a person
    assert {call["agentguard.run.id"] for call in [part, *calls]} == {"r-1"}
    assert [call["agentguard.tool.outcome"] for call in calls] == [
        "ok",
        "duplicate_noop",
        "pending",
    ]
    assert not [name for call in calls for name in call if name.startswith("gen_ai.tool.call.a")]


def test_a_dead_collector_costs_nothing(tmp_path: Path) -> None:
    """Where nobody listens for spans, calls and their record are as ever."""
    (nobody,) = free_ports(1)
    assert agent(f"http://127.0.0.1:{nobody}/v1/traces", timeout=0.1, flush=False) == SAID
