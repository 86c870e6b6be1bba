"""Verdicts are `gen_ai.evaluation.result` events, below the span of what was evaluated."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from agentguard import Verdict, _evaluations, idempotent, tool_contract, verified_by
from agentguard.errors import ToolTimeout
from tests.telemetry.watched import Watched, facts

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MIRROR = "AGENTGUARD_OTEL_SPAN_EVENTS"
IBAN = "DE44500105175407324931"


def sure(arguments: Any, result: Any) -> Verdict:
    """Say yes, and how sure it is."""
    return Verdict(
        passed=True, confidence=0.75, reason=f"{arguments['to']} has {arguments['iban']}"
    )


def right(arguments: Any, result: Any) -> bool:
    """Say yes to everybody but eve."""
    return bool(arguments["to"] != "eve")


def breaks(arguments: Any, result: Any) -> Verdict:
    """Break."""
    raise OSError("no line")


@tool_contract(effect="write", sensitive=["iban"])
@idempotent(key="pay:{to}")
@verified_by(sure, right)
def pay(to: str, iban: str = IBAN) -> str:
    """Pay somebody."""
    return to


@tool_contract(effect="read")
@verified_by(breaks)
def look(to: str) -> str:
    """Look somebody up."""
    return to


def test_each_verdict_is_one_event(seen: Watched) -> None:
    """A verdict says who gave it, of what kind that is, what it was and how sure; else one or zero."""
    seen.call(pay, "eve")
    assert [event.event_name for event in seen.events()] == ["gen_ai.evaluation.result"] * 2
    assert [facts(event) for event in seen.events()] == [
        {
            "gen_ai.evaluation.name": "sure",
            "gen_ai.evaluation.score.label": "pass",
            "agentguard.verifier.kind": "rule",
            "gen_ai.evaluation.score.value": 0.75,
        },
        {
            "gen_ai.evaluation.name": "right",
            "gen_ai.evaluation.score.label": "fail",
            "agentguard.verifier.kind": "rule",
            "gen_ai.evaluation.score.value": 0.0,
        },
    ]


@pytest.mark.parametrize("sure", [float("nan"), 2, -1, True, "high"])
def test_a_score_is_a_number_from_0_to_1(seen: Watched, sure: Any) -> None:
    """A confidence that is none makes the verdict a no, and its score that of a no."""

    @tool_contract(effect="read")
    @verified_by(lambda _arguments, _result: Verdict(passed=True, confidence=sure))
    def sees(to: str) -> str:
        return to

    seen.call(sees, "ada")
    (event,) = seen.events()
    assert facts(event)["gen_ai.evaluation.score.label"] == "fail"
    assert facts(event)["gen_ai.evaluation.score.value"] == 0.0


def test_a_verdict_hangs_below_the_call(seen: Watched) -> None:
    """The event names trace and span of the call that was verified."""
    seen.call(pay, "ada")
    (span,) = seen.spans()
    context = span.get_span_context()
    assert context is not None
    for event in seen.events():
        assert (event.trace_id, event.span_id) == (context.trace_id, context.span_id)


def test_a_verdict_on_a_run_hangs_below_the_run(seen: Watched) -> None:
    """What verifies a run as a whole is told below the span of its last part."""
    seen.call(lambda: None, verified_by=[lambda _run, _effects: True])
    (event,), (span,) = seen.events(), seen.spans("invoke_workflow")
    context = span.get_span_context()
    assert context is not None
    assert event.span_id == context.span_id


def test_a_verifier_that_broke_has_no_score(seen: Watched) -> None:
    """Nobody has said no: the event names the failure instead of a number."""
    seen.call(look, "ada")
    (event,) = seen.events()
    assert facts(event) == {
        "gen_ai.evaluation.name": "breaks",
        "gen_ai.evaluation.score.label": "unavailable",
        "agentguard.verifier.kind": "rule",
        "error.type": "verifier_unavailable",
    }


def test_a_replay_is_not_evaluated_again(seen: Watched) -> None:
    """A result that is given back from the record makes no new event."""
    for _ in range(2):
        seen.call(pay, "ada")
    assert len(seen.events()) == 2


@pytest.mark.parametrize("switch", ["", "NO_CONTENT", "SPAN_ONLY", "true"])
def test_reasons_are_content(seen: Watched, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    """A reason may tell what it judged, so it is left out unless events may have content."""
    monkeypatch.setenv(CAPTURE, switch)
    seen.call(pay, "ada")
    assert not [e for e in seen.events() if "gen_ai.evaluation.explanation" in facts(e)]


@pytest.mark.parametrize("switch", ["EVENT_ONLY", "SPAN_AND_EVENT", " event_only "])
def test_the_standard_switch_lets_reasons_out(
    seen: Watched, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    """With content in events, a reason is there, without what was declared sensitive."""
    monkeypatch.setenv(CAPTURE, switch)
    seen.call(pay, "ada")
    told = facts(seen.events()[0])["gen_ai.evaluation.explanation"]
    assert told == "ada has [hidden]"


@pytest.mark.parametrize(
    ("switch", "on_span"),
    [("NO_CONTENT", False), ("EVENT_ONLY", False), ("SPAN_ONLY", True), ("SPAN_AND_EVENT", True)],
)
def test_arguments_follow_the_switch(
    seen: Watched, monkeypatch: pytest.MonkeyPatch, switch: str, *, on_span: bool
) -> None:
    """Arguments and results are content of spans; the conventions have no event for them."""
    monkeypatch.setenv(CAPTURE, switch)
    seen.call(pay, "ada")
    (span,) = seen.spans()
    assert ("gen_ai.tool.call.arguments" in facts(span)) is on_span
    assert "gen_ai.tool.call.arguments" not in facts(seen.events()[0])


def test_a_switch_that_means_nothing_is_told_once(
    seen: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Any other value captures nothing, and the log says once what there is."""
    monkeypatch.setenv(CAPTURE, "yes please")
    _evaluations._unknown.cache_clear()
    with caplog.at_level(logging.WARNING, "agentguard"):
        for to in ("ada", "bob"):
            seen.call(pay, to)
    assert len([r for r in caplog.records if "is none of NO_CONTENT" in r.message]) == 1


@pytest.mark.parametrize("switch", [None, "false", "true", "TRUE"])
def test_events_can_be_mirrored_on_spans(
    seen: Watched, monkeypatch: pytest.MonkeyPatch, switch: str | None
) -> None:
    """For backends that take no logs, a switch puts the same event on the span."""
    if switch is not None:
        monkeypatch.setenv(MIRROR, switch)
    seen.call(pay, "ada")
    (span,) = seen.spans()
    mirrored = [event.name for event in span.events]
    there = (switch or "").lower() == "true"
    assert mirrored == (["gen_ai.evaluation.result"] * 2 if there else [])
    if there:
        assert facts(span.events[0]) == facts(seen.events()[0])


def test_verdicts_are_told_of_calls_that_are_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are no spans: a sampler that keeps nothing takes no verdict away."""
    seen = Watched(monkeypatch, sampler=ALWAYS_OFF)
    seen.call(pay, "ada")
    assert len(seen.events()) == 2
    seen.close()


def test_a_verdict_on_a_late_answer_is_told(seen: Watched) -> None:
    """A thread that answers after its deadline is verified then, below the span that has ended."""
    answers, settled = threading.Event(), threading.Event()

    def checks(arguments: Any, result: Any) -> bool:
        return True

    @tool_contract(effect="write", timeout=0.01, isolation="thread")
    @idempotent(per="call")
    @verified_by(checks)
    def slow(to: str) -> str:
        answers.wait(5)
        return to

    emit = seen.logs.export

    def taken(batch: Any) -> Any:
        result = emit(batch)
        settled.set()
        return result

    seen.logs.export = taken
    assert isinstance(seen.call(slow, "ada"), ToolTimeout)
    assert seen.events() == []
    answers.set()
    assert settled.wait(5)
    (event,), (span,) = seen.events(), seen.spans()
    context = span.get_span_context()
    assert context is not None
    assert event.span_id == context.span_id


def test_a_logger_that_breaks_reaches_no_call(
    seen: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When events cannot be emitted, what was verified stands."""

    class Broken:
        def emit(self, record: Any) -> None:
            raise OSError("disk full")

    monkeypatch.setattr(_evaluations, "_LOGGER", Broken())
    assert seen.call(pay, "ada") == "ada"
