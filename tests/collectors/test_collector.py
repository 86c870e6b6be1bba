"""Telemetry leaves the process the ordinary way: through a collector that somebody else has written."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.collectors.conftest import Line
from tests.collectors.rotel import free_ports
from tests.collectors.sink import Log, Point, Sink, Span
from tests.collectors.tree import calls, parts
from tests.support import ROOT

PROTOCOLS = ("grpc", "http/protobuf")
SAID = [
    "refunded 20",
    "refunded 20",
    "waits for a person",
    "waits for a person",
    "refunded 75",
    "denied by the books",
    "broken chains: []",
]
VERDICT = "gen_ai.evaluation.result"
IDS = ("r-1", "r-2", "T-1", "T-2", "T-3", "dana")
"""What would make a metric's series many: runs, arguments, people."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sink has of one agent."""

    said: list[str]
    spans: list[Span]
    points: list[Point]
    logs: list[Log]

    def count(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """Add up a counter, or the numbers in a histogram, by some of its labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for point in self.points:
            if point.name == name:
                found[tuple(str(point.attributes[label]) for label in labels)] += int(point.value)
        return found


@pytest.fixture(scope="module", name="seen", params=PROTOCOLS)
def agent_behind_the_collector(line: Line, request: pytest.FixtureRequest) -> Seen:
    """Let the agent work once with each protocol, and wait until all of it has arrived."""
    end, before = line.sink, (len(line.sink.spans), len(line.sink.points), len(line.sink.logs))
    said = agent(line.collector.at(request.param), request.param)
    assert end.until(lambda sink: all_there(sink, *before))
    spans, points, logs = before
    return Seen(said[:-1], end.spans[spans:], end.points[points:], end.logs[logs:])


def all_there(sink: Sink, spans: int, points: int, logs: int) -> bool:
    """Tell whether the last of each signal has arrived."""
    runs = [span for span in sink.spans[spans:] if not span.parent_id]
    return len(runs) == 4 and len(sink.logs) == logs + 3 and len(sink.points) > points


def agent(endpoint: str, protocol: str) -> list[str]:
    """Run the agent to its end, and return what it says; the last line is its time."""
    command = [sys.executable, "-m", "tests.collectors.agent", endpoint, protocol]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_spans_arrive_as_a_tree(seen: Seen) -> None:
    """Each part of a run is a span with its calls below it, of the kinds that backends know."""
    assert seen.said == SAID
    first, second = parts(seen.spans, "r-1")
    assert {first.name, second.name} == {"invoke_workflow refund_and_close_ticket"}
    assert {part.attributes["openinference.span.kind"] for part in (first, second)} == {"CHAIN"}
    assert [part.attributes["agentguard.run.outcome"] for part in (first, second)] == [
        "pending",
        "success",
    ]
    below = calls(seen.spans, first)
    assert [(call.name, call.parent_id) for call in below] == [
        ("execute_tool refund", first.span_id)
    ] * 3
    assert {call.attributes["openinference.span.kind"] for call in below} == {"TOOL"}
    assert {span.source["service.name"] for span in seen.spans} == {"refunds"}


def test_each_call_says_how_it_ended(seen: Seen) -> None:
    """Done, answered from the record, waiting, and done after a yes: one span each, no error."""
    first, second = parts(seen.spans, "r-1")
    told = [call for part in (first, second) for call in calls(seen.spans, part)]
    assert [call.attributes["agentguard.tool.outcome"] for call in told] == [
        "ok",
        "duplicate_noop",
        "pending",
        "ok",
    ]
    assert {span.status for span in [first, second, *told]} == {"UNSET"}
    assert {call.attributes["agentguard.run.id"] for call in told} == {"r-1"}


def test_an_approval_is_pending_and_then_linked(seen: Seen) -> None:
    """The part that goes on is a trace of its own, linked to the part in which the call waited."""
    first, second = parts(seen.spans, "r-1")
    assert second.links == (first.span_id,)
    assert second.trace_id != first.trace_id
    waited, went_on = calls(seen.spans, first)[-1], calls(seen.spans, second)[0]
    names = ("agentguard.approval.id", "agentguard.idempotency.key_sha256")
    for name in names:
        assert waited.attributes[name] == went_on.attributes[name]
    assert waited.attributes["agentguard.approval.status"] == "pending"
    assert went_on.attributes["agentguard.approval.status"] == "approved"


def test_a_denied_outcome_is_an_error(seen: Seen) -> None:
    """A call whose verifier says no is an error, and so is its run."""
    second = parts(seen.spans, "r-2")[1]
    (call,) = calls(seen.spans, second)
    assert (call.status, second.status) == ("ERROR", "ERROR")
    assert call.attributes["error.type"] == "agentguard.errors.VerificationFailed"


def test_no_content_leaves(seen: Seen) -> None:
    """Arguments, results and who approved stay in the record unless the standard switch says else."""
    told = [str(value) for span in seen.spans for value in span.attributes.values()]
    told += [str(value) for log in seen.logs for value in log.attributes.values()]
    assert [
        text for text in told if any(word in text for word in ("T-1", "dana", "books say"))
    ] == []


def test_verdicts_arrive_as_logs_of_the_call(seen: Seen) -> None:
    """Each verdict is an event of the conventions, at the span of the call that it judges."""
    runs = [part for run_id in ("r-1", "r-2") for part in parts(seen.spans, run_id)]
    judged = {
        call.span_id
        for part in runs
        for call in calls(seen.spans, part)
        if call.attributes["agentguard.tool.outcome"] in ("ok", "error")
    }
    assert {log.event for log in seen.logs} == {VERDICT}
    assert {log.span_id for log in seen.logs} == judged
    assert Counter(log.attributes["gen_ai.evaluation.score.label"] for log in seen.logs) == {
        "pass": 2,
        "fail": 1,
    }
    assert {log.attributes["gen_ai.evaluation.name"] for log in seen.logs} == {"books_agree"}
    traces = {span.span_id: span.trace_id for span in seen.spans}
    assert all(log.trace_id == traces[log.span_id] for log in seen.logs)


def test_verdicts_stand_on_spans_too(seen: Seen) -> None:
    """A backend without logs sees by the call's span who judged and what was said."""
    (call,) = calls(seen.spans, parts(seen.spans, "r-2")[1])
    names = ("agentguard.verifier.name", "agentguard.verifier.verdict")
    values = [[v.string_value for v in call.attributes[name].values] for name in names]
    assert values == [["books_agree"], ["fail"]]


def test_calls_and_runs_are_counted(seen: Seen) -> None:
    """Counters tell calls by tool and outcome, runs by workflow and outcome, verdicts by verifier."""
    workflow = "refund_and_close_ticket"
    assert seen.count("agentguard.tool_calls", "gen_ai.tool.name", "agentguard.tool.outcome") == {
        ("refund", "ok"): 2,
        ("refund", "duplicate_noop"): 1,
        ("refund", "pending"): 2,
        ("refund", "error"): 1,
    }
    runs = seen.count("agentguard.runs", "gen_ai.workflow.name", "agentguard.run.outcome")
    assert runs == {(workflow, "pending"): 2, (workflow, "success"): 1, (workflow, "failure"): 1}
    labels = ("agentguard.verifier.name", "agentguard.verifier.verdict")
    assert seen.count("agentguard.verifications", *labels) == {
        ("books_agree", "pass"): 2,
        ("books_agree", "fail"): 1,
    }
    assert seen.count("agentguard.tool.duration", "gen_ai.tool.name") == {("refund",): 6}
    assert seen.count("agentguard.approval.wait", "gen_ai.tool.name") == {("refund",): 2}


def test_metrics_name_nobody(seen: Seen) -> None:
    """No label of a metric holds a run, an argument, a key or a person."""
    said = {str(v) for p in seen.points for v in p.attributes.values()}
    assert [word for word in IDS if word in said] == []
    assert [
        name for p in seen.points for name in p.attributes if name.endswith((".id", "sha256"))
    ] == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dead_collector_costs_nothing(protocol: str) -> None:
    """Where nobody listens, calls and their record are as ever, and the process ends in time."""
    (nobody,) = free_ports(1)
    began = time.perf_counter()
    *said, seconds = agent(f"http://127.0.0.1:{nobody}", protocol)
    assert said == SAID
    assert float(seconds) < 2
    assert time.perf_counter() - began < 15
