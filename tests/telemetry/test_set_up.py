"""`set_up` sends to a collector, replaces nothing, and ends in time whatever the collector does."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agentguard import otel
from agentguard.errors import ConfigurationError

AGENT = """
import json, sys, time
from agentguard import Guard, idempotent, tool_contract, verified_by
from agentguard.otel import set_up

options = json.loads(sys.argv[1])
calls, wait = options.pop("calls", 1), options.pop("shutdown", None)
telemetry = set_up("refunds", **options)

@tool_contract(effect="write")
@idempotent(per="call")
@verified_by(lambda arguments, result: True)
def pay(to: str) -> str:
    return to

guard = Guard("memory://")
with guard.run("w", run_id="r", loops="off"):
    paid = [pay(str(number)) for number in range(calls)]
began = time.monotonic()
ended = None if wait is None else telemetry.shutdown(wait)
took = time.monotonic() - began
print(json.dumps({
    "paid": len(paid), "on record": len(guard.effects.list("succeeded", limit=1000)),
    "ended": ended, "took": took,
}))
"""


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, answers with one status, and remembers the paths and headers."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.status, self.taken = status, list[tuple[str, Mapping[str, str], bytes]]()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Taking(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    server: Collector

    def do_POST(self) -> None:
        """Take one request."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.taken.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(name="collector")
def a_collector() -> Iterator[Collector]:
    """A collector that takes everything."""
    yield from serving(Collector())


def serving(server: Collector) -> Iterator[Collector]:
    """Serve until the test is over."""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def agent(environment: Mapping[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """Run an agent in a process of its own and return what it printed."""
    told = subprocess.run(
        [sys.executable, "-c", AGENT, json.dumps(options)],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return {**found, "said": told.stderr}


def test_all_three_signals_arrive(collector: Collector) -> None:
    """Spans, metrics and events are sent when the process shuts telemetry down."""
    told = agent(endpoint=collector.url, headers={"x-key": "k"}, shutdown=10)
    assert told["ended"] is True
    assert {path for path, _, _ in collector.taken} == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert {headers["x-key"] for _, headers, _ in collector.taken} == {"k"}
    sent = {path: body for path, _, body in collector.taken}
    assert b"execute_tool pay" in sent["/v1/traces"]
    assert b"agentguard.tool_calls" in sent["/v1/metrics"]
    assert b"gen_ai.evaluation.result" in sent["/v1/logs"]
    assert all(b"refunds" in body for body in sent.values())


def test_the_variables_of_opentelemetry_count(collector: Collector) -> None:
    """What is not given comes from OTEL_EXPORTER_OTLP_*; a process that just ends sends too."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    assert agent(environment, signals=["traces"])["ended"] is None
    assert [path for path, _, _ in collector.taken] == ["/v1/traces"]


def test_the_variables_of_one_signal_count_more(collector: Collector) -> None:
    """What is said of one signal holds for that one, whatever is said of all."""
    environment = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/own/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-key=k",
    }
    agent(environment, signals=["traces"], shutdown=10)
    assert [path for path, _, _ in collector.taken] == ["/own/v1/traces"]
    assert collector.taken[0][1]["x-key"] == "k"


def test_what_is_set_up_is_not_replaced() -> None:
    """Whoever has a provider keeps it, and is told so in one sentence."""
    program = (
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "from agentguard.errors import ConfigurationError; from agentguard.otel import set_up\n"
        "try: set_up('x', endpoint='http://127.0.0.1:9')\n"
        "except ConfigurationError as error: print(error.message)\n"
        "from opentelemetry import metrics; print(type(metrics.get_meter_provider()).__name__)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    sentence, meters = told.stdout.splitlines()
    assert sentence == (
        "set_up: this process has a TracerProvider already, and agentguard uses what is set: leave"
        " set_up out"
    )
    assert meters == "_ProxyMeterProvider"


def test_importing_it_sets_nothing_up() -> None:
    """Until it is called, neither the SDK nor an exporter is loaded."""
    program = (
        "import sys, agentguard.otel\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a path": ({"endpoint": "http://x:4318/v1/traces"}, "without /v1/traces"),
    "no scheme": ({"endpoint": "localhost:4318"}, "such as http://localhost:4318"),
    "a protocol": ({"protocol": "http/json"}, "there is no protocol 'http/json'"),
    "a signal": ({"signals": ["spans"]}, "there is no signal 'spans'"),
    "a timeout": ({"timeout": 0}, "timeout=0 is not a number of seconds over 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_option_is_refused(what: str) -> None:
    """What would send nothing is refused before anything is set."""
    options, sentence = REFUSED[what]
    with pytest.raises(ConfigurationError) as refused:
        otel.set_up("x", **options)
    assert sentence in refused.value.message


SAID_WRONG = {
    "OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318": "such as http://localhost:4318, without",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://x:4318/v1/traces": "such as http://localhost:4318, without",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=x:4318": "such as http://localhost:4318/v1/metrics",
    "OTEL_EXPORTER_OTLP_PROTOCOL=http/json": "there are http/protobuf, grpc",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http": "there are http/protobuf, grpc",
}


@pytest.mark.parametrize("said", SAID_WRONG)
def test_a_variable_that_would_send_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """What the environment says wrongly is refused by the name of the variable."""
    name, _, value = said.partition("=")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        otel.set_up("x")
    assert name in refused.value.message
    assert SAID_WRONG[said] in refused.value.message


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra has no gRPC: whoever asks for it is told what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(ConfigurationError) as refused:
        otel.set_up("x", protocol="grpc")
    assert refused.value.message == (
        "set_up: opentelemetry.exporter.otlp.proto.grpc.trace_exporter is not installed: pip install"
        " opentelemetry-exporter-otlp-proto-grpc"
    )


@pytest.fixture(name="silent")
def a_silent_port() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def dead_port() -> str:
    """Return where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.fixture(name="refusing")
def a_refusing_collector() -> Iterator[Collector]:
    """A collector that is always too busy."""
    yield from serving(Collector(503))


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        ("dead", "http/protobuf"),
        ("silent", "http/protobuf"),
        ("refusing", "http/protobuf"),
        ("silent", "grpc"),
    ],
)
def test_no_collector_keeps_a_process(
    silent: str, refusing: Collector, kind: str, protocol: str
) -> None:
    """With a dead, silent or refusing collector every call is made and recorded, and the end is quick.

    There are more calls than the queue holds: spans without room are dropped, and calls are not.
    """
    endpoint = {"dead": dead_port(), "silent": silent, "refusing": refusing.url}[kind]
    environment = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16"}
    told = agent(environment, endpoint=endpoint, protocol=protocol, calls=200, shutdown=0.2)
    assert (told["paid"], told["on record"]) == (200, 200)
    assert "Queue full" not in told["said"]  # a warning for each would cost each call its time
    assert told["took"] < 1


@pytest.mark.parametrize("one", ["", "TRACES_"])
def test_a_timeout_of_the_environment_holds(silent: str, one: str) -> None:
    """Exports give up as soon as a variable says, be it that of all signals or that of one."""
    environment = {f"OTEL_EXPORTER_OTLP_{one}TIMEOUT": "0.2"}
    told = agent(environment, endpoint=silent, signals=["traces"], shutdown=3)
    assert told["ended"] is True  # with the five seconds of `set_up` it would not have


def test_a_process_ends_in_time_without_shutdown(silent: str) -> None:
    """A process that forgets to shut down waits two seconds for a silent collector at the most."""
    began = time.monotonic()
    agent(endpoint=silent, signals=["traces"])
    assert time.monotonic() - began < 10
