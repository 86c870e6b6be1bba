"""Verdicts become annotations of spans, whenever the spans come, and no call waits for that."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from agentguard.errors import ConfigurationError
from agentguard.otel import Signal, set_up
from agentguard.phoenix import AnnotationExporter
from tests.collectors.rotel import free_ports
from tests.collectors.sink import spans_in
from tests.support import ROOT

EVENT = "gen_ai.evaluation.result"
NAME, LABEL = "gen_ai.evaluation.name", "gen_ai.evaluation.score.label"
KIND = "agentguard.verifier.kind"
Attributes = dict[str, Any]
WATCHED = """
import sys
from agentguard import Guard, idempotent, tool_contract, verified_by
from agentguard.otel import set_up
from agentguard.phoenix import AnnotationExporter

@tool_contract(effect="write")
@idempotent(key="close:{ticket}")
@verified_by(lambda arguments, result: result == "closed")
def close(ticket: str) -> str:
    return "closed"

with set_up(
    "support", endpoint=sys.argv[1], signals=["traces", "logs"],
    exporters={"logs": AnnotationExporter(sys.argv[1])},
):
    with Guard("memory://").run("close_tickets"):
        close("T-1")
"""


class Phoenix(ThreadingHTTPServer):
    """Answers as Phoenix 20 does: all of a request or none, by the spans that it has.

    Attributes:
        spans: the ids that it knows.
        taken: the annotations that it took, and `asked` how often it was asked.
        answer: a status with which it answers everything instead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.spans: set[str] = set()
        self.taken: list[Any] = []
        self.keys: list[str | None] = []
        self.asked = 0
        self.answer = 0
        self.learns: dict[int, str] = {}

    def annotate(self, annotations: list[Any]) -> tuple[int, str]:
        """Take annotations, or say why not; after some requests another span arrives."""
        self.asked += 1
        if self.answer:
            return self.answer, "no"
        unknown = {each["span_id"] for each in annotations} - self.spans
        self.spans |= {self.learns.pop(self.asked, "")}
        if unknown:
            return 404, f"Spans with IDs {', '.join(sorted(unknown))} do not exist."
        self.taken += annotations
        return 200, ""


class Answering(BaseHTTPRequestHandler):
    """One request."""

    server: Phoenix

    def do_POST(self) -> None:
        """Answer it."""
        if self.path == "/v1/traces":
            self.take_spans()
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        assert self.path == "/v1/span_annotations?sync=true"
        status, said = self.server.annotate(body["data"])
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def take_spans(self) -> None:
        """Take spans by OTLP."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.spans |= {span.span_id for span in spans_in(body)}
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(name="phoenix")
def phoenix_of_the_test() -> Iterator[Phoenix]:
    """A backend that is there."""
    with Phoenix() as phoenix:
        threading.Thread(target=phoenix.serve_forever, args=(0.05,), daemon=True).start()
        yield phoenix
        phoenix.shutdown()


@pytest.fixture(name="exporter")
def exporter_to_it(phoenix: Phoenix) -> AnnotationExporter:
    """An exporter that sends to it."""
    return AnnotationExporter(f"http://127.0.0.1:{phoenix.server_port}", patience=2)


def tell(exporter: AnnotationExporter, *verdicts: LogRecord) -> float:
    """Emit *verdicts* as an application would, flush, and return the seconds that emitting took."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = provider.get_logger("agentguard")
    began = time.perf_counter()
    for verdict in verdicts:
        logger.emit(verdict)
    took = time.perf_counter() - began
    provider.shutdown()
    return took


def verdict(span: int, said: Attributes | None = None, *, sampled: bool = True) -> LogRecord:
    """Make the log record of a verdict on a span; *said* goes before what it says as a rule."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    seen = NonRecordingSpan(SpanContext(7, span, is_remote=False, trace_flags=flags))
    attributes = {NAME: "books_agree", LABEL: "pass", KIND: "rule", **(said or {})}
    return LogRecord(event_name=EVENT, attributes=attributes, context=set_span_in_context(seen))


def test_a_verdict_becomes_an_annotation_of_its_span(
    phoenix: Phoenix, exporter: AnnotationExporter
) -> None:
    """Name, label, score and explanation arrive at the span that was judged, with our attributes."""
    phoenix.spans = {f"{18:016x}"}
    score = {"gen_ai.evaluation.score.value": 0.75, "gen_ai.evaluation.explanation": "they differ"}
    tell(exporter, verdict(18, {**score, LABEL: "fail"}))
    assert phoenix.taken == [
        {
            "span_id": "0000000000000012",
            "name": "books_agree",
            "annotator_kind": "CODE",
            "result": {"label": "fail", "score": 0.75, "explanation": "they differ"},
            "metadata": {"agentguard.verifier.kind": "rule"},
            "identifier": "agentguard",
        }
    ]


def test_who_judged_is_told(phoenix: Phoenix, exporter: AnnotationExporter) -> None:
    """A rule annotates as code, a model as a model, a person as a person."""
    phoenix.spans = {f"{1:016x}"}
    tell(exporter, *(verdict(1, {KIND: kind}) for kind in ("rule", "model", "person")))
    assert [each["annotator_kind"] for each in phoenix.taken] == ["CODE", "LLM", "HUMAN"]


def test_a_verdict_waits_for_its_span_and_holds_up_no_other(
    phoenix: Phoenix, exporter: AnnotationExporter
) -> None:
    """A verdict whose span comes later is sent again; one whose span is there is taken at once."""
    phoenix.spans, phoenix.learns = {f"{1:016x}"}, {3: f"{2:016x}"}
    tell(exporter, verdict(2), verdict(1))
    assert [each["span_id"][-1] for each in phoenix.taken] == ["1", "2"]


def test_a_span_that_never_comes_is_given_up(phoenix: Phoenix) -> None:
    """Waiting ends with the patience; the exporter says that it failed."""
    exporter = AnnotationExporter(f"http://127.0.0.1:{phoenix.server_port}", patience=0.3)
    tell(exporter, verdict(9))
    assert phoenix.taken == []
    assert 0 < phoenix.asked < 5


@pytest.mark.parametrize("status", [307, 401, 422])
def test_a_refusal_is_not_repeated(
    phoenix: Phoenix, exporter: AnnotationExporter, status: int
) -> None:
    """What Phoenix refuses is left out at once, and no redirection gets the key."""
    phoenix.answer = status
    tell(exporter, verdict(1))
    assert phoenix.asked == 1


def test_a_busy_phoenix_is_asked_again(phoenix: Phoenix) -> None:
    """An answer of 503 is no refusal."""
    exporter = AnnotationExporter(f"http://127.0.0.1:{phoenix.server_port}", patience=0.3)
    phoenix.answer = 503
    tell(exporter, verdict(1))
    assert phoenix.asked == 2


def test_only_verdicts_on_spans_that_are_kept_are_sent(
    phoenix: Phoenix, exporter: AnnotationExporter
) -> None:
    """Other logs, verdicts outside a trace and verdicts on spans that were not sampled stay away."""
    other = LogRecord(event_name="app.started", context=verdict(1).context)
    tell(exporter, other, verdict(0), verdict(1, sampled=False))
    assert phoenix.asked == 0


def test_the_reserved_name_is_gone_around(phoenix: Phoenix, exporter: AnnotationExporter) -> None:
    """A verifier called note, which Phoenix keeps for itself, gets a longer name."""
    phoenix.spans = {f"{1:016x}"}
    tell(exporter, verdict(1, {NAME: "note"}))
    assert [each["name"] for each in phoenix.taken] == ["note (verifier)"]


def test_headers_go_along(phoenix: Phoenix) -> None:
    """A Phoenix with authentication gets the key."""
    phoenix.spans = {f"{1:016x}"}
    address = f"http://127.0.0.1:{phoenix.server_port}/"
    tell(AnnotationExporter(address, headers={"Authorization": "Bearer k"}), verdict(1))
    assert phoenix.keys == ["Bearer k"]
    assert len(phoenix.taken) == 1


def test_nobody_waits_for_a_phoenix_that_is_not_there() -> None:
    """Emitting takes no time with nobody listening, and leaving takes little."""
    (nobody,) = free_ports(1)
    began = time.perf_counter()
    took = tell(AnnotationExporter(f"http://127.0.0.1:{nobody}"), *map(verdict, range(1, 9)))
    assert took < 0.5
    assert time.perf_counter() - began < 5


def test_one_call_sets_up_both(phoenix: Phoenix) -> None:
    """An application that sets up traces and this exporter has its verdict at its tool's span."""
    address = f"http://127.0.0.1:{phoenix.server_port}"
    subprocess.run([sys.executable, "-c", WATCHED, address], check=True, cwd=ROOT)
    (taken,) = phoenix.taken
    assert taken["span_id"] in phoenix.spans
    assert taken["result"] == {"label": "pass", "score": 1.0}


def test_an_exporter_for_a_signal_that_is_not_sent_is_refused() -> None:
    """Verdicts would be lost without a word where logs are not among the signals."""
    exporters: dict[Signal, Any] = {"logs": AnnotationExporter()}
    with pytest.raises(ConfigurationError, match="exporters has 'logs', signals has traces"):
        set_up("support", signals=["traces"], exporters=exporters)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoint": "localhost:6006"}, "is no address"),
        ({"endpoint": "ftp://phoenix"}, "is no address"),
        ({"patience": 0}, "above zero"),
        ({"timeout": -1}, "above zero"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], said: str) -> None:
    """A wrong address and times that are none are refused where they stand."""
    with pytest.raises(ConfigurationError, match=said):
        AnnotationExporter(**given)
