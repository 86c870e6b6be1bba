"""Spans: one for every part of a run and one for every call, however it ends."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agentguard import (
    ApprovalRequired,
    EffectInDoubt,
    Guard,
    NoEffect,
    Principal,
    _scope,
    budget,
    config,
    idempotent,
    requires_approval,
    telemetry,
    tool_contract,
)
from agentguard.hosting import Host, guarded_retrieval
from agentguard.testing import FakeClock

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
IBAN = "DE44500105175407324931"


WHO = Principal(agent="support", scopes=frozenset({"refunds"}))


class Pause(BaseException):
    """How an agent runtime steers itself."""


@tool_contract(effect="read")
def look(to: str) -> str:
    """Look somebody up."""
    return f"{to} is fine"


@tool_contract(effect="write", sensitive=["iban"])
@idempotent(key="pay:{to}")
@requires_approval(when="amount > 50")
@budget(max_calls=3, cost="0.10")
def pay(to: str, amount: Decimal = Decimal(1), iban: str = "") -> dict[str, Any]:
    """Pay somebody."""
    if to == "nobody":
        raise NoEffect("there is no such person", retryable=False)
    if to == "fog":
        raise OSError("the line went dead")
    return {"to": to, "amount": amount, "account": iban}


@tool_contract(effect="write", scopes=["admin"])
@idempotent(key="drop:{table}")
def drop(table: str) -> str:
    """Drop a table."""
    return table


@tool_contract(effect="forbidden")
def launch() -> str:
    """Never do this."""
    return "launched"


class Recorder:
    """What an application that has set up OpenTelemetry would see of a guard."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.other = provider.get_tracer("somebody else")
        # A process has one provider for good, so each test gives agentguard a tracer of its own.
        monkeypatch.setattr(telemetry, "_TRACER", provider.get_tracer("agentguard"))
        self.guard: Guard = Guard("memory://", clock=FakeClock(), principal=WHO)

    def spans(self, kind: str = "execute_tool") -> list[ReadableSpan]:
        """Return the finished spans of one operation, in the order in which they ended."""
        found = self.exporter.get_finished_spans()
        return [s for s in found if facts(s).get("gen_ai.operation.name") == kind]

    def call(self, function: Callable[..., Any], *args: Any, run: str = "r", **limits: Any) -> Any:
        """Call a tool in a run, and return what it returns or raises."""
        try:
            with self.guard.run("w", run_id=run, **limits):
                return function(*args)
        except (Exception, Pause) as error:  # noqa: BLE001 - the spans are looked at, not this
            return error

    def one(self, function: Callable[..., Any], *args: Any, **more: Any) -> ReadableSpan:
        """Call a tool once more and return the one span of that."""
        before = len(self.spans())
        self.call(function, *args, **more)
        (span,) = self.spans()[before:]
        return span


@pytest.fixture(name="seen")
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A guard whose spans are recorded."""
    monkeypatch.delenv(CAPTURE, raising=False)
    seen = Recorder(monkeypatch)
    yield seen
    seen.guard.close()


def ids(span: Any) -> tuple[int, int]:
    """Return the trace and the id of a span."""
    context = span.get_span_context()
    return context.trace_id, context.span_id


def facts(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


# The part of a run.


def test_a_part_of_a_run_is_a_workflow_span(seen: Recorder) -> None:
    """Entering a run makes one span, named and typed as the conventions say."""
    with seen.guard.run("refund", run_id="r"):
        look("ada")
        pay("ada")
    (span,) = seen.spans("invoke_workflow")
    assert (span.name, span.kind) == ("invoke_workflow refund", SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.UNSET
    assert {k: v for k, v in facts(span).items() if k != "agentguard.version"} == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "refund",
        "openinference.span.kind": "CHAIN",
        "agentguard.run.id": "r",
        "agentguard.run.part": 1,
        "agentguard.run.outcome": "success",
        "agentguard.run.steps": 2,
        "agentguard.run.model_calls": 0,
        "agentguard.run.tool_calls": 2,
        "agentguard.run.cost_usd": 0.1,
        "agentguard.run.cost_complete": True,
    }


def test_workflow_spans_carry_no_usage(seen: Recorder) -> None:
    """Tokens and models stay on the spans of model calls, or backends would count them twice."""
    with seen.guard.run("w") as run:
        call = run.model_started(model="m", messages=[])
        run.model_finished(call, output="hi", input_tokens=10, output_tokens=5)
    (span,) = seen.spans("invoke_workflow")
    assert not [n for n in facts(span) if n.startswith(("gen_ai.usage", "gen_ai.request"))]


def test_calls_hang_below_their_run(seen: Recorder) -> None:
    """A call's span is a child of the span of its run, in the same trace."""
    span = seen.one(look, "ada")
    (parent,) = seen.spans("invoke_workflow")
    assert span.parent is not None
    assert span.parent.span_id == ids(parent)[1]


def test_a_resumed_run_is_linked_to_its_earlier_part(seen: Recorder) -> None:
    """The parts of a run are traces of their own, each linked to the one before it."""
    for _ in range(3):
        seen.call(look, "ada")
    parts = seen.spans("invoke_workflow")
    assert [facts(span)["agentguard.run.part"] for span in parts] == [1, 2, 3]
    assert len({ids(span)[0] for span in parts}) == 3
    links = [[link.context.span_id for link in span.links] for span in parts]
    assert links == [[], *[[ids(span)[1]] for span in parts[:-1]]]


ENDINGS: dict[str, tuple[BaseException | None, str, StatusCode]] = {
    "nothing": (None, "success", StatusCode.UNSET),
    "an error": (ValueError("x"), "failure", StatusCode.ERROR),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_says_how_it_ended(seen: Recorder, ending: str) -> None:
    """A run that is left by an error has failed; any other end of its block is a success."""
    error, outcome, status = ENDINGS[ending]

    def work() -> None:
        if error is not None:
            raise error

    seen.call(work)
    (span,) = seen.spans("invoke_workflow")
    assert (facts(span)["agentguard.run.outcome"], span.status.status_code) == (outcome, status)


def test_a_run_that_waits_is_no_error(seen: Recorder) -> None:
    """A run that is left because people have to decide is pending, and its span is not red."""
    assert isinstance(seen.call(pay, "ada", Decimal(75)), ApprovalRequired)
    (span,) = seen.spans("invoke_workflow")
    assert facts(span)["agentguard.run.outcome"] == "pending"
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in facts(span)


def test_a_run_whose_agent_goes_on_without_its_approval_waits(seen: Recorder) -> None:
    """A span says what the store says: a run with an open question has not succeeded."""

    def go_on() -> str:
        with pytest.raises(ApprovalRequired):
            pay("ada", Decimal(75))
        return "I asked for it"

    assert seen.call(go_on) == "I asked for it"
    (span,) = seen.spans("invoke_workflow")
    assert facts(span)["agentguard.run.outcome"] == "pending"
    assert (seen.guard.runs.show("r").status, span.status.status_code) == (
        "waiting",
        StatusCode.UNSET,
    )


def test_a_run_that_was_cancelled_meanwhile_is_no_success(seen: Recorder) -> None:
    """An agent that goes on to its end after its run was cancelled has not succeeded."""
    seen.call(lambda: seen.guard.runs.cancel("r", by="dana", reason="stop"))
    (span,) = seen.spans("invoke_workflow")
    assert facts(span)["agentguard.run.outcome"] == "aborted"


def test_a_run_over_budget_says_so(seen: Recorder) -> None:
    """A run that was ended by a budget is told apart from one that failed."""
    seen.call(look, "ada", max_steps=0)
    (span,) = seen.spans("invoke_workflow")
    assert facts(span)["agentguard.run.outcome"] == "budget_exceeded"


# The call.


def test_a_call_is_an_execute_tool_span(seen: Recorder) -> None:
    """A call makes one span, named and typed as the conventions say, with agentguard's facts."""
    with seen.guard.run("w", run_id="r") as run, run.tool_call("call_1"):
        pay("ada")
    (span,) = seen.spans()
    assert (span.name, span.kind) == ("execute_tool pay", SpanKind.INTERNAL)
    found = facts(span)
    key = seen.guard.effects.list()[0].id
    assert len(found.pop("agentguard.tool.args_sha256")) == 64
    assert found == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "pay",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.description": "Pay somebody.",
        "gen_ai.agent.name": "support",
        "gen_ai.workflow.name": "w",
        "openinference.span.kind": "TOOL",
        "agentguard.run.id": "r",
        "agentguard.run.step": 1,
        "agentguard.tool.effect": "write",
        "agentguard.tool.outcome": "ok",
        "agentguard.tool.attempt": 1,
        "agentguard.policy.decision": "allow",
        "agentguard.policy.rule": "no rule asks",
        "agentguard.idempotency.key_sha256": key,
        "agentguard.idempotency.replayed": False,
        "agentguard.cost.usd": 0.1,
        "agentguard.cost.source": "local",
    }


def test_what_samplers_need_is_there_from_the_start(
    seen: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operation, tool, agent, workflow and run are known when a span starts."""
    started: list[dict[str, Any]] = []

    class Watch(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            started.append(facts(span))

    provider = TracerProvider()
    provider.add_span_processor(Watch(InMemorySpanExporter()))
    monkeypatch.setattr(telemetry, "_TRACER", provider.get_tracer("agentguard"))
    seen.call(look, "ada")
    assert [s["gen_ai.operation.name"] for s in started] == ["invoke_workflow", "execute_tool"]
    assert started[0]["gen_ai.workflow.name"] == "w"
    assert {
        "gen_ai.tool.name": "look",
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": "support",
        "gen_ai.workflow.name": "w",
    }.items() <= started[1].items()


def stopped(seen: Recorder) -> ReadableSpan:
    """Throw the switch, and call."""
    seen.guard.kill(all=True, by="dana", reason="x")
    return seen.one(pay, "ada")


OUTCOMES: dict[str, tuple[Callable[[Recorder], ReadableSpan], str, str, StatusCode]] = {
    "a read": (lambda seen: seen.one(look, "ada"), "ok", "", StatusCode.UNSET),
    "a write": (lambda seen: seen.one(pay, "ada"), "ok", "", StatusCode.UNSET),
    "a replay": (lambda seen: (seen.call(pay, "ada"), seen.one(pay, "ada"))[1],
                 "duplicate_noop", "", StatusCode.UNSET),
    "a failure": (lambda seen: seen.one(pay, "nobody"), "error", "agentguard.model.NoEffect",
                  StatusCode.ERROR),
    "a doubt": (lambda seen: seen.one(pay, "fog"), "error", "agentguard.errors.EffectInDoubt",
                StatusCode.ERROR),
    "a wrong argument": (lambda seen: seen.one(pay, "ada", "much"), "error",
                         "agentguard.errors.ContractViolation", StatusCode.ERROR),
    "a missing scope": (lambda seen: seen.one(drop, "users"), "denied",
                        "agentguard.errors.PermissionDenied", StatusCode.ERROR),
    "a forbidden tool": (lambda seen: seen.one(launch), "denied",
                         "agentguard.errors.ForbiddenAction", StatusCode.ERROR),
    "another payload": (lambda seen: (seen.call(pay, "ada"), seen.one(pay, "ada", Decimal(2)))[1],
                        "denied", "agentguard.errors.IdempotencyConflict", StatusCode.ERROR),
    "a question": (lambda seen: seen.one(pay, "ada", Decimal(75)), "pending", "",
                   StatusCode.UNSET),
    "a rejection": (lambda seen: decided(seen, "reject"), "rejected",
                    "agentguard.errors.ApprovalRejected", StatusCode.ERROR),
    "an approved call": (lambda seen: decided(seen, "approve"), "ok", "", StatusCode.UNSET),
    "a late approval": (lambda seen: decided(seen, "expire"), "denied",
                        "agentguard.errors.ApprovalExpired", StatusCode.ERROR),
    "a run over budget": (lambda seen: seen.one(look, "ada", max_steps=0), "skipped_budget",
                          "agentguard.errors.BudgetExceeded", StatusCode.ERROR),
    "a tool over budget": (lambda seen: ([seen.call(pay, f"{n}") for n in range(3)],
                                         seen.one(pay, "ada"))[1],
                           "skipped_budget", "agentguard.errors.BudgetExceeded", StatusCode.ERROR),
    "a loop": (lambda seen: seen.one(look, "ada", max_repeats=0), "skipped_budget",
               "agentguard.errors.LoopDetected", StatusCode.ERROR),
    "a switch": (stopped,
                 "denied", "agentguard.errors.RunHalted", StatusCode.ERROR),
}  # fmt: skip


def decided(seen: Recorder, decision: str) -> ReadableSpan:
    """Ask, take a decision, and call again."""
    seen.call(pay, "ada", Decimal(75))
    approval = seen.guard.approvals.list()[0]
    if decision == "expire":
        clock: Any = seen.guard.store.clock
        clock.advance(days=2)
    else:
        seen.guard.approvals.decide(approval.id, decision, by="dana", reason="so")
    return seen.one(pay, "ada", Decimal(75))


@pytest.mark.parametrize("what", OUTCOMES)
def test_every_end_of_a_call_has_one_span(seen: Recorder, what: str) -> None:
    """However a call ends, exactly one span says how, and only what went wrong is an error."""
    make, outcome, error, status = OUTCOMES[what]
    span = make(seen)
    assert facts(span)["agentguard.tool.outcome"] == outcome
    assert facts(span).get("error.type", "") == error
    assert span.status.status_code is status


@pytest.mark.parametrize(
    ("decision", "said"), [("approve", "allow"), ("reject", "deny"), ("", "require_approval")]
)
def test_a_span_names_the_decision_and_its_approval(
    seen: Recorder, decision: str, said: str
) -> None:
    """A call about which people were asked says by which rule, and names the approval."""
    span = decided(seen, decision) if decision else seen.one(pay, "ada", Decimal(75))
    approval = seen.guard.approvals.list()[0]
    assert facts(span)["agentguard.policy.decision"] == said
    assert facts(span)["agentguard.approval.id"] == approval.id
    if decision != "reject":
        assert facts(span)["agentguard.policy.rule"] == "amount > 50"


def test_a_replay_says_that_it_is_one(seen: Recorder) -> None:
    """A call that is served again names the key and the step of the first one."""
    first = seen.one(pay, "ada")
    again = seen.one(pay, "ada", run="r2")
    assert facts(again)["agentguard.idempotency.replayed"] is True
    same = "agentguard.idempotency.key_sha256"
    assert facts(again)[same] == facts(first)[same]


def test_a_pause_of_the_runtime_is_no_error(seen: Recorder) -> None:
    """The exception by which a runtime pauses passes through, and no span is red."""

    class Pausing(Host):
        control_flow = (Pause,)

        def can_pause(self) -> bool:
            return True

        def pause(self, approval: Any) -> None:
            raise Pause

    with pytest.raises(Pause), seen.guard.run("w", run_id="r", host=Pausing()):
        pay("ada", Decimal(75))
    (span,), (part,) = seen.spans(), seen.spans("invoke_workflow")
    assert facts(span)["agentguard.tool.outcome"] == "pending"
    assert facts(part)["agentguard.run.outcome"] == "pending"
    assert {span.status.status_code, part.status.status_code} == {StatusCode.UNSET}


async def test_an_async_call_has_its_span(seen: Recorder) -> None:
    """Asynchronous runs and tools are told like any other."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    async def send(to: str) -> str:
        with seen.other.start_as_current_span("POST"):
            return to

    async with seen.guard.run("w"):
        await send("ada")
    (span,) = seen.spans()
    assert facts(span)["agentguard.tool.outcome"] == "ok"
    assert parent_of(seen, "POST") == ids(span)[1]


def parent_of(seen: Recorder, name: str) -> int | None:
    """Return the id of the parent of the span called *name*."""
    (span,) = [s for s in seen.exporter.get_finished_spans() if s.name == name]
    return span.parent.span_id if span.parent else None


def test_what_a_body_calls_hangs_below_its_span(seen: Recorder) -> None:
    """Spans that are made inside the body are children of the call's span, and nothing after is."""

    @tool_contract(effect="read")
    def fetch() -> str:
        with seen.other.start_as_current_span("GET"):
            return "x"

    with seen.guard.run("w"):
        fetch()
        seen.other.start_span("later").end()
    (span,), (part,) = seen.spans(), seen.spans("invoke_workflow")
    assert parent_of(seen, "GET") == ids(span)[1]
    assert parent_of(seen, "later") == ids(part)[1]


def test_a_guarded_call_inside_another_has_its_own_span(seen: Recorder) -> None:
    """A tool that calls itself has a span for each call, each with its own outcome."""

    @tool_contract(effect="read")
    def count(down: int) -> int:
        return count(down - 1) + 1 if down else 0

    seen.call(count, 2)
    assert [facts(span)["agentguard.tool.outcome"] for span in seen.spans()] == ["ok"] * 3


# Beside other instrumentations.


@pytest.mark.parametrize("name", ["look", "plugin-look"])
def test_a_span_that_is_open_for_the_call_is_adopted(seen: Recorder, name: str) -> None:
    """Where an instrumentation has opened the tool's span, its span is completed, not doubled."""
    theirs = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    with (
        seen.guard.run("w", run_id="r"),
        seen.other.start_as_current_span(f"execute_tool {name}", attributes=theirs),
    ):
        look("ada")
        assert trace.get_current_span().is_recording()
    (span,) = seen.spans()
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "somebody else"
    assert (
        facts(span).items()
        >= {
            **theirs,
            "agentguard.tool.outcome": "ok",
            "agentguard.tool.effect": "read",
            "agentguard.run.id": "r",
        }.items()
    )


@pytest.mark.parametrize(
    "theirs",
    [
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "other"},
        {"gen_ai.operation.name": "chat", "gen_ai.tool.name": "look"},
        {},
    ],
)
def test_a_span_of_something_else_is_not_adopted(seen: Recorder, theirs: dict[str, str]) -> None:
    """Inside a span of another tool or operation, a call makes its own span below it."""
    with (
        seen.guard.run("w"),
        seen.other.start_as_current_span("theirs", attributes=theirs) as outer,
    ):
        look("ada")
    (span,) = [s for s in seen.spans() if s.name == "execute_tool look"]
    assert span.parent is not None
    assert span.parent.span_id == ids(outer)[1]


def test_a_span_is_adopted_by_one_call(seen: Recorder) -> None:
    """When one open span sees two guarded calls, each outcome is told on a span of its own."""
    theirs = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "pay"}
    with seen.guard.run("w"), seen.other.start_as_current_span("pay", attributes=theirs):
        pay("ada")
        with pytest.raises(ApprovalRequired):
            pay("bob", Decimal(75))
    assert sorted(facts(s)["agentguard.tool.outcome"] for s in seen.spans()) == ["ok", "pending"]


# Content.


@pytest.mark.parametrize("switch", [None, "NO_CONTENT", "EVENT_ONLY", "true", ""])
def test_arguments_are_not_on_spans(
    seen: Recorder, monkeypatch: pytest.MonkeyPatch, switch: str | None
) -> None:
    """Unless the standard switch says so, no argument and no result is on any span."""
    if switch is not None:
        monkeypatch.setenv(CAPTURE, switch)
    seen.call(look, "Ada Lovelace")
    seen.call(pay, "Ada Lovelace", Decimal(75))
    assert "Lovelace" not in " ".join(s.to_json() for s in seen.exporter.get_finished_spans())


@pytest.mark.parametrize("switch", ["SPAN_ONLY", "SPAN_AND_EVENT", "span_only"])
def test_the_standard_switch_puts_content_on_spans(
    seen: Recorder, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    """With the switch on, a call's span has its arguments and its result as JSON."""
    monkeypatch.setenv(CAPTURE, switch)
    for _ in range(2):
        found = facts(seen.one(pay, "ada", Decimal("2.50")))
        assert json.loads(found["gen_ai.tool.call.arguments"]) == {
            "to": "ada",
            "amount": "2.5",
            "iban": "[hidden]",
        }
        assert json.loads(found["gen_ai.tool.call.result"])["amount"] == "2.5"


def test_a_call_without_a_result_has_none_on_its_span(
    seen: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waits or fails shows what it was asked, and no result."""
    monkeypatch.setenv(CAPTURE, "SPAN_ONLY")
    for span in (seen.one(pay, "ada", Decimal(75)), seen.one(pay, "nobody")):
        assert "gen_ai.tool.call.arguments" in facts(span)
        assert "gen_ai.tool.call.result" not in facts(span)


def test_a_retrievals_span_counts_documents_and_shows_no_text(
    seen: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the switch on, a span has what the record has: ids, scores and hashes."""
    monkeypatch.setenv(CAPTURE, "SPAN_ONLY")
    found = [{"id": "kb-7", "score": 0.9, "text": "secret plan"}]
    search = guarded_retrieval(
        seen.guard, lambda query: found, name="search", documents=lambda result: result
    )
    span = seen.one(search, "plans?")
    assert facts(span)["agentguard.retrieval.documents"] == 1
    (shown,) = json.loads(facts(span)["gen_ai.tool.call.result"])
    assert (shown["id"], shown["score"], len(shown["sha256"])) == ("kb-7", "0.9", 64)
    assert "secret plan" not in span.to_json()


def test_what_is_sensitive_is_on_no_span(seen: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared sensitive arguments are hidden on spans, in results and in later calls too."""
    monkeypatch.setenv(CAPTURE, "SPAN_ONLY")
    with seen.guard.run("w"):
        assert pay("ada", Decimal(1), IBAN)["account"] == IBAN
        look(f"who owns {IBAN}?")
        with pytest.raises(EffectInDoubt):
            pay("fog", Decimal(1), IBAN)
    told = " ".join(span.to_json() for span in seen.exporter.get_finished_spans())
    assert told.count("[hidden]") >= 4
    assert IBAN not in told


# Without a collector, without a provider.


def test_without_opentelemetry_set_up_there_is_nothing_to_pay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the API alone, calls work, leave no trace to link to, and set no provider up."""
    before = trace.get_tracer_provider()
    guard = Guard("memory://")
    for _ in range(2):
        with guard.run("w", run_id="r"):
            assert look("ada") == "ada is fine"
            assert not trace.get_current_span().is_recording()
    assert trace.get_tracer_provider() is before
    guard.close()


def test_traces_can_be_switched_off(seen: Recorder) -> None:
    """A configuration that wants no traces gets none."""
    settings = config.loads("agent_run:\n  workflow: w\n  logging:\n    trace: 'none'\n")
    guard = Guard("memory://", config=settings)
    with guard.run("w"):
        look("ada")
    assert seen.exporter.get_finished_spans() == ()
    guard.close()


def test_the_version_on_spans_is_the_one_that_is_installed() -> None:
    """What spans say of agentguard's version is what pyproject.toml says."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["version"] == _scope.VERSION
