"""What spans say beyond their names: people, money, budgets, verdicts; and what breaks them."""

from __future__ import annotations

import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentguard import (
    Guard,
    Principal,
    Verdict,
    budget,
    compensated_by,
    idempotent,
    requires_approval,
    telemetry,
    tool_contract,
    verified_by,
)
from agentguard.errors import StoreUnavailable
from agentguard.fallback import falls_back_to
from agentguard.hosting import Host
from agentguard.ledger import recent
from agentguard.stores.sqlite import SqliteStore
from tests.telemetry.watched import Watched, facts


def confirms(arguments: Any, result: Any) -> Verdict:
    """Say yes to everybody but eve."""
    return Verdict(passed=arguments["to"] != "eve")


def breaks(arguments: Any, result: Any) -> Verdict:
    """Break."""
    raise OSError("no line")


@tool_contract(effect="read")
def look(to: str) -> str:
    """Look somebody up.

    What follows is for those who read the code.
    """
    return to


@tool_contract(effect="write")
@idempotent(key="pay:{to}")
@requires_approval(when="amount > 50")
@budget(max_calls=1, cost="0.10")
def pay(to: str, amount: Decimal = Decimal(1)) -> str:
    """Pay somebody."""
    return to


@tool_contract(effect="write", scopes=["admin"])
@idempotent(key="drop:{to}")
@falls_back_to("draft")
def drop(to: str) -> str:
    """Drop something."""
    return to


def one(seen: Watched, function: Any, *args: Any, **options: Any) -> dict[str, Any]:
    """Call a tool once more and return what the one span of that says."""
    before = len(seen.spans())
    seen.call(function, *args, **options)
    (span,) = seen.spans()[before:]
    return facts(span)


def workflow(seen: Watched) -> ReadableSpan:
    """Return the span of the last part of a run."""
    return seen.spans("invoke_workflow")[-1]


# People.


def asked(seen: Watched, decision: str | None, by: str = "Dana Ross") -> dict[str, Any]:
    """Have people asked, let somebody decide after a while, and return the span of what follows."""
    first = one(seen, pay, "ada", Decimal(75))
    if decision is None:
        return first
    seen.clock.advance(seconds=90)
    approval = seen.guard.approvals.list(status="pending")[0]
    seen.guard.approvals.decide(approval.id, decision, by=by, reason="so")
    seen.clock.advance(hours=1)
    return one(seen, pay, "ada", Decimal(75))


def test_a_question_says_that_it_waits(seen: Watched) -> None:
    """A call that waits names its approval, and why people were turned to."""
    told = asked(seen, None)
    assert told["agentguard.approval.status"] == "pending"
    assert told["agentguard.escalation.reason"] == "approval"
    assert not {"agentguard.approval.wait_s", "agentguard.approval.approver_ref"} & told.keys()


@pytest.mark.parametrize(("decision", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_a_decision_says_how_long_it_took(seen: Watched, decision: str, status: str) -> None:
    """A call that people have decided on says what they said, and how long they took to."""
    told = asked(seen, decision)
    assert told["agentguard.approval.status"] == status
    assert told["agentguard.approval.wait_s"] == 90


def test_who_decided_is_told_apart_and_not_named(seen: Watched) -> None:
    """One person has one reference in a tenant; no span has the name."""
    refs = []
    for number, by in enumerate(["Dana Ross", "Dana Ross", "Kim Lee"]):
        seen.call(pay, f"ada{number}", Decimal(75), run=f"{number}")
        approval = seen.guard.approvals.list(status="pending")[0]
        seen.guard.approvals.decide(approval.id, "reject", by=by, reason="so")
        told = one(seen, pay, f"ada{number}", Decimal(75), run=f"{number}")
        refs.append(told["agentguard.approval.approver_ref"])
    assert (refs[0] == refs[1], refs[1] == refs[2], len(refs[0])) == (True, False, 16)
    all_told = " ".join(span.to_json() for span in seen.exporter.get_finished_spans())
    assert "Dana" not in all_told
    assert "Ross" not in all_told


def test_another_tenant_has_another_reference_for_the_same_person(seen: Watched) -> None:
    """References are keyed by the tenant's secret: nobody can look a name up, or join tenants."""
    refs = []
    for tenant in ("a", "b"):
        who = Principal(agent="x", tenant=tenant)
        seen.call(pay, "ada", Decimal(75), run=tenant, principal=who)
        approval = seen.guard.approvals.list(status="pending", tenant=tenant)[0]
        seen.guard.approvals.decide(approval.id, "reject", by="dana", reason="so", tenant=tenant)
        told = one(seen, pay, "ada", Decimal(75), run=tenant, principal=who)
        refs.append(told["agentguard.approval.approver_ref"])
    assert refs[0] != refs[1]


def test_no_span_is_open_while_people_think(seen: Watched) -> None:
    """The spans before and after a decision each end with their part of the run; they are linked."""
    asked(seen, "approve")
    first, second = seen.spans("invoke_workflow")
    assert [facts(s)["agentguard.run.outcome"] for s in (first, second)] == ["pending", "success"]
    assert first.end_time is not None
    assert second.start_time is not None
    assert first.end_time <= second.start_time
    before: Any = first.get_span_context()
    assert second.links[0].context.span_id == before.span_id


def test_a_draft_of_the_agents_stage_is_no_error(seen: Watched) -> None:
    """What an agent may only write down waits for a person: pending, by a draft."""
    told = one(seen, pay, "ada", autonomy="draft")
    assert told["agentguard.tool.outcome"] == "pending"
    assert told["agentguard.escalation.reason"] == "draft"
    assert "error.type" not in told


def test_a_safe_ending_says_what_led_to_it(seen: Watched) -> None:
    """A call that was denied stays denied when its run ends in a draft, and says so twice."""
    who = Principal(agent="support", scopes=frozenset())
    told = one(seen, drop, "x", principal=who)
    assert told["agentguard.tool.outcome"] == "denied"
    assert told["agentguard.escalation.reason"] == "fallback_draft"
    part = facts(workflow(seen))
    assert part["agentguard.run.outcome"] == "escalated"
    assert part["agentguard.escalation.reason"] == "fallback_draft"


# Money and budgets.


def test_a_call_says_what_it_cost_once(seen: Watched) -> None:
    """The call that did it has the cost; its replay has none."""
    first, again = one(seen, pay, "ada"), one(seen, pay, "ada")
    assert (first["agentguard.cost.usd"], first["agentguard.cost.source"]) == (0.1, "local")
    assert "agentguard.cost.usd" not in again


@pytest.mark.parametrize("priced", [True, False])
def test_a_run_says_whether_its_cost_is_complete(seen: Watched, *, priced: bool) -> None:
    """A model call without a price makes what the run cost unknown, not free."""
    guard = Guard("memory://", prices={"m": ("1", "1")})
    with guard.run("w") as run:
        call = run.model_started(model="m" if priced else "?", messages=[])
        run.model_finished(call, input_tokens=1_000_000)
    guard.close()
    told = facts(workflow(seen))
    assert told["agentguard.run.cost_complete"] is priced
    assert told["agentguard.run.cost_usd"] == (1.0 if priced else 0.0)


def test_a_budget_without_room_is_named(seen: Watched) -> None:
    """A call that a budget refused says which, how large it is, and how much of it was used."""
    seen.call(pay, "ada")
    told = one(seen, pay, "bob")
    found = {
        name: told[f"agentguard.budget.{name}"] for name in ("name", "limit", "used", "action")
    }
    assert found == {
        "name": "max_calls of pay per run", "limit": "1", "used": "1", "action": "refused",
    }  # fmt: skip
    assert facts(workflow(seen))["agentguard.budget.name"] == "max_calls of pay per run"


# Calls that end before they have begun, and undos.


def test_a_call_whose_key_cannot_be_made_has_its_span(seen: Watched) -> None:
    """A key's own code that breaks ends the call's span, and what comes next does not hang below it."""

    @tool_contract(effect="write")
    @idempotent(key=lambda to: to["id"])
    def note(to: str) -> str:
        return to

    with seen.guard.run("w") as run:
        around = trace.get_current_span()
        with pytest.raises(TypeError):
            note("ada")
        assert trace.get_current_span() is around
        look("ada")
        run.finish()
    broken, looked = seen.spans()
    assert facts(broken)["agentguard.tool.outcome"] == "error"
    assert facts(broken)["error.type"] == "TypeError"
    assert (broken.parent, looked.parent) == (around.get_span_context(),) * 2
    assert seen.points("agentguard.tool_calls")["write", "error", "note"] == 1


def test_a_part_that_cannot_be_entered_has_its_span(seen: Watched, tmp_path: Path) -> None:
    """A run whose earlier calls cannot be read when it goes on is not entered, and its span says why."""

    class Dying(SqliteStore):
        def read(self, query: Any, *args: Any) -> Any:
            if query is recent.calls:
                raise StoreUnavailable("the disk is gone")
            return super().read(query, *args)

    with closing(Guard(Dying(tmp_path / "a.db"))) as guard:
        with guard.run("w", run_id="r"):
            look("ada")
        with pytest.raises(StoreUnavailable), guard.run("w", run_id="r"):
            look("bob")
    first, second = seen.spans("invoke_workflow")
    assert (first.status.status_code, second.status.status_code) == (
        StatusCode.UNSET, StatusCode.ERROR,
    )  # fmt: skip
    assert facts(second)["error.type"] == "agentguard.errors.StoreUnavailable"


@pytest.mark.parametrize(("decision", "ends"), [(None, "pending"), ("reject", "rejected")])
def test_an_undo_says_what_people_said(seen: Watched, decision: str | None, ends: str) -> None:
    """An undo that people have to allow has the same ends as any other call."""

    @requires_approval()
    def unpay(result: str) -> None:
        pass

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    @compensated_by(unpay)
    def transfer(to: str) -> str:
        return to

    seen.call(transfer, "ada")
    seen.guard.rollback("r", tools=[transfer], by="kim", reason="wrong")
    if decision is not None:
        (approval,) = seen.guard.approvals.list(status="pending")
        seen.guard.approvals.decide(approval.id, decision, by="dana", reason="so")
        seen.guard.rollback("r", tools=[transfer], by="kim", reason="wrong")
    told = facts(seen.spans()[-1])
    assert (told["gen_ai.tool.name"], told["agentguard.tool.outcome"]) == ("transfer.undo", ends)


class Pause(Exception):
    """How a runtime pauses."""


class Pausing(Host):
    """A runtime that pauses where people are asked."""

    control_flow = (Pause,)

    def can_pause(self) -> bool:
        """Say yes."""
        return True

    def pause(self, approval: Any) -> None:
        """Pause."""
        raise Pause


def test_a_pause_before_an_undo_is_no_error(seen: Watched) -> None:
    """Where a runtime pauses until people have allowed an undo, neither it nor its call is red."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    @verified_by(lambda _arguments, _result: False)
    @compensated_by(lambda result: None, approval=True)
    def transfer(to: str) -> str:
        return to

    assert isinstance(seen.call(transfer, "ada", host=Pausing()), Pause)
    undo, call = seen.spans()
    assert facts(undo)["gen_ai.tool.name"] == "transfer.undo"
    assert [facts(span)["agentguard.tool.outcome"] for span in (undo, call)] == ["pending"] * 2
    assert {span.status.status_code for span in (undo, call)} == {StatusCode.UNSET}


# Verdicts.


def test_verdicts_stand_on_the_span_of_the_call(seen: Watched) -> None:
    """Verifiers and their verdicts are two lists in the same order."""

    @tool_contract(effect="write")
    @idempotent(key="note:{to}")
    @verified_by(confirms, breaks)
    def note(to: str) -> str:
        return to

    said = {to: one(seen, note, to, run=to) for to in ("ada", "eve")}
    assert said["ada"]["agentguard.verifier.name"] == ("confirms", "breaks")
    assert said["ada"]["agentguard.verifier.verdict"] == ("pass", "unavailable")
    assert said["eve"]["agentguard.verifier.verdict"] == ("fail",)


def test_verdicts_on_a_run_stand_on_its_own_span(seen: Watched) -> None:
    """A run that is refuted as a whole is no success, and its span says who said no."""
    seen.call(look, "ada", verified_by=[lambda _run, _effects: False])
    span = workflow(seen)
    told = facts(span)
    assert told["agentguard.verifier.verdict"] == ("fail",)
    assert told["agentguard.run.outcome"] == "failure"
    assert (told["error.type"], span.status.status_code) == (
        "agentguard.errors.VerificationFailed", StatusCode.ERROR,
    )  # fmt: skip


# What samplers see, and what tools say of themselves.


class Picky(Sampler):
    """Keeps the calls of tools, and notes what it was told of each span at its start."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def should_sample(self, *given: Any, **named: Any) -> SamplingResult:
        """Decide by the operation."""
        attributes = dict(given[4] if len(given) > 4 else named["attributes"])
        self.told.append(attributes)
        kept = attributes["gen_ai.operation.name"] == "execute_tool"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kept else Decision.DROP, attributes)

    def get_description(self) -> str:
        """Say what it is."""
        return "picky"


def test_a_sampler_can_choose_by_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operation, tool and workflow are there when a span starts, so a sampler can go by them."""
    sampler = Picky()
    seen = Watched(monkeypatch, sampler=sampler)
    seen.call(look, "ada")
    seen.close()
    assert [span.name for span in seen.exporter.get_finished_spans()] == ["execute_tool look"]
    assert {t["gen_ai.workflow.name"] for t in sampler.told} == {"w"}


class WithoutTools(Picky):
    """Keeps all but the calls of tools."""

    def should_sample(self, *given: Any, **named: Any) -> SamplingResult:
        """Decide by the operation, if there is one."""
        attributes = dict((given[4] if len(given) > 4 else named.get("attributes")) or {})
        kept = attributes.get("gen_ai.operation.name") != "execute_tool"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kept else Decision.DROP, attributes)


def test_what_a_dropped_call_does_is_dropped_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler that leaves a call out leaves out what its body does, as in any other trace."""
    kept = WithoutTools()
    seen = Watched(monkeypatch, sampler=ParentBased(kept, local_parent_sampled=kept))

    @tool_contract(effect="read")
    def asks(to: str) -> str:
        with seen.provider.get_tracer("theirs").start_as_current_span("request"):
            return to

    seen.call(asks, "ada")
    seen.close()
    assert [span.name for span in seen.exporter.get_finished_spans()] == ["invoke_workflow w"]


def test_runs_that_are_not_sampled_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics count every run and call, whatever a sampler makes of their spans."""
    seen = Watched(monkeypatch, sampler=trace_nothing())
    seen.call(look, "ada")
    assert seen.exporter.get_finished_spans() == ()
    assert seen.points("agentguard.runs") == {("success", "w"): 1}
    assert seen.points("agentguard.tool_calls") == {("read", "ok", "look"): 1}
    seen.close()


def trace_nothing() -> Sampler:
    """Return a sampler that keeps nothing."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    return ALWAYS_OFF


def test_a_tool_is_described_by_its_first_paragraph(seen: Watched) -> None:
    """What a tool's docstring begins with is its description; a tool without one has none."""

    @tool_contract(effect="read")
    def bare() -> str:
        return ""

    assert one(seen, look, "ada")["gen_ai.tool.description"] == "Look somebody up."
    assert "gen_ai.tool.description" not in one(seen, bare)


def test_workflow_spans_carry_neither_model_nor_usage(seen: Watched) -> None:
    """Backends would count tokens twice, or take the run for a model call."""
    with seen.guard.run("w") as run:
        call = run.model_started(model="m", messages=[])
        run.model_finished(call, output="hi", input_tokens=10, output_tokens=5)
        look("ada")
    told = [name for span in seen.exporter.get_finished_spans() for name in facts(span)]
    assert not [
        n for n in told if n.startswith(("gen_ai.usage", "gen_ai.request", "gen_ai.response"))
    ]


# Spans of a runtime's instrumentation, and of the caller.


def test_without_an_sdk_the_callers_trace_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that records nothing still tells those it calls whose trace it serves."""
    monkeypatch.setattr(telemetry, "_TRACER", trace.ProxyTracer("agentguard"))
    given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    passed: dict[str, str] = {}

    @tool_contract(effect="read")
    def asks(to: str) -> str:
        TraceContextTextMapPropagator().inject(passed)
        return to

    token = context.attach(TraceContextTextMapPropagator().extract(given))
    try:
        with closing(Guard("memory://")) as guard, guard.run("w"):
            asks("ada")
    finally:
        context.detach(token)
    assert passed == given


class Instrumented(Host):
    """A runtime whose instrumentation keeps the spans of its calls outside the current context."""

    def __init__(self, tracer: Any) -> None:
        self.open = tracer.start_span("look", attributes={"openinference.span.kind": "TOOL"})
        self.asked: list[str] = []

    def tool_span(self, tool: str) -> Any:
        """Return the span that is open."""
        self.asked.append(tool)
        return self.open


def test_a_runtimes_own_span_is_completed(seen: Watched) -> None:
    """A span that the runtime has open for the call gets our facts; we make none of our own."""
    host = Instrumented(seen.provider.get_tracer("theirs"))
    with seen.guard.run("w", host=host):
        look("ada")
    host.open.end()
    (span,) = seen.spans()
    assert (span.name, host.asked) == ("look", ["look"])
    assert facts(span).items() >= {
        "gen_ai.tool.name": "look", "gen_ai.workflow.name": "w", "agentguard.tool.outcome": "ok",
        "openinference.span.kind": "TOOL", "agentguard.run.id": workflow_id(seen),
    }.items()  # fmt: skip


def workflow_id(seen: Watched) -> Any:
    """Return the id of the run whose span ended last."""
    return facts(workflow(seen))["agentguard.run.id"]


def test_what_the_body_calls_hangs_below_the_runtimes_span(seen: Watched) -> None:
    """The runtime's span is the current one while the tool is at work, and not afterwards."""
    host = Instrumented(seen.provider.get_tracer("theirs"))
    current: list[Any] = []

    @tool_contract(effect="read")
    def inside() -> str:
        current.append(trace.get_current_span())
        return ""

    with seen.guard.run("w", host=host):
        inside()
        current.append(trace.get_current_span())
    host.open.end()
    assert (current[0] is host.open, current[1] is host.open) == (True, False)


def test_a_runtimes_span_is_given_to_one_call(seen: Watched) -> None:
    """A second guarded call under the same span of the runtime has a span of its own."""
    host = Instrumented(seen.provider.get_tracer("theirs"))
    with seen.guard.run("w", host=host):
        look("ada")
        look("bob")
    host.open.end()
    assert sorted(span.name for span in seen.spans()) == ["execute_tool look", "look"]


def test_a_runtime_that_cannot_tell_its_span_costs_no_call(seen: Watched) -> None:
    """When asking the runtime fails, the call goes on with a span of its own."""

    class Broken(Host):
        def tool_span(self, tool: str) -> Any:
            raise LookupError(tool)

    with seen.guard.run("w", host=Broken()):
        assert look("ada") == "ada"
    assert [span.name for span in seen.spans()] == ["execute_tool look"]


# What breaks.


class Unspeakable:
    """What a tool may return: nothing can show it."""

    def __repr__(self) -> str:
        """Break."""
        raise LookupError("closed")


def test_what_cannot_be_shown_costs_the_content_alone(
    seen: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that breaks when it is written as text leaves the span of its call as it was."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")

    @tool_contract(effect="read")
    def opens(to: str) -> Any:
        return Unspeakable()

    told = one(seen, opens, "ada")
    assert told["agentguard.tool.outcome"] == "ok"
    assert "gen_ai.tool.call.result" not in told


class Bursting(SimpleSpanProcessor):
    """A processor of somebody who made a mistake."""

    def __init__(self, when: str) -> None:
        super().__init__(InMemorySpanExporter())
        self.when = when

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Break, or not."""
        if self.when == "start":
            raise KeyError("start")

    def on_end(self, span: Any) -> None:
        """Break, or not."""
        if self.when == "end":
            raise KeyError("end")


@pytest.mark.parametrize("when", ["start", "end"])
def test_a_processor_that_breaks_reaches_no_call(seen: Watched, when: str) -> None:
    """A write that happened is not reported as failed because its span could not be taken."""
    seen.provider.add_span_processor(Bursting(when))
    assert seen.call(pay, "ada") == "ada"
    assert seen.call(pay, "ada") == "ada"
    (effect,) = seen.guard.effects.list()
    assert effect.state == "succeeded"
    assert seen.guard.runs.show("r").status == "succeeded"


def test_spans_that_nobody_takes_are_dropped(seen: Watched) -> None:
    """While an exporter is stuck, calls go on; what its queue has no room for is lost, as a span."""
    go, taken = threading.Event(), list[str]()

    class Stuck(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            go.wait()
            taken.extend(span.name for span in spans)
            return super().export(spans)

    batches: Any = BatchSpanProcessor(Stuck(), max_queue_size=8, max_export_batch_size=4)
    seen.provider.add_span_processor(batches)
    with seen.guard.run("w", run_id="r", loops="off"):
        assert [look(str(number)) for number in range(50)] == [str(n) for n in range(50)]
    go.set()
    batches.shutdown()
    assert seen.guard.runs.show("r").tool_calls == 50
    assert 8 <= len(taken) <= 12


def test_a_sampler_that_breaks_reaches_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler that raises costs the span, not the call."""

    class Bad(Picky):
        def should_sample(self, *given: Any, **named: Any) -> SamplingResult:
            raise ZeroDivisionError

    seen = Watched(monkeypatch, sampler=Bad())
    assert seen.call(pay, "ada") == "ada"
    assert seen.exporter.get_finished_spans() == ()
    seen.close()
