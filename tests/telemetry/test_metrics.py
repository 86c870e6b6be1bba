"""Metrics: told where the pipeline knows the fact, with labels that are written in code."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from agentguard import (
    ApprovalRequired,
    Guard,
    NoEffect,
    Principal,
    Retry,
    Verdict,
    _metrics,
    budget,
    config,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.errors import FellBack
from agentguard.testing import FakeClock
from tests.telemetry.watched import Watched

SECRETS = (
    "run-4711",
    "acme corp",
    "ada@example.org",
    "key-0815",
    "DE44",
    "dana",
    "agent-007",
    "sub-1",
)


def confirms(arguments: Any, result: Any) -> Verdict:
    """Say yes, and why in words that hold an argument."""
    return Verdict(
        passed=arguments["to"] != "eve", reason=f"seen {arguments['to']}", confidence=0.9
    )


@tool_contract(effect="read")
def look(to: str) -> str:
    """Look somebody up."""
    if to == "nobody":
        raise NoEffect("no such person", retryable=False)
    return to


@tool_contract(effect="write", sensitive=["iban"])
@idempotent(key="key-0815:{to}")
@requires_approval(when="amount > 50")
@budget(max_calls=3, cost="0.10")
def pay(to: str, amount: Decimal = Decimal(1), iban: str = "") -> str:
    """Pay somebody."""
    return to


@tool_contract(effect="write")
@idempotent(key="note:{to}")
@verified_by(confirms)
def note(to: str) -> str:
    """Note something down."""
    return to


@tool_contract(effect="write", scopes=["admin"])
@idempotent(key="drop:{to}")
@falls_back_to("draft")
def drop(to: str) -> str:
    """Drop something."""
    return to


def test_calls_are_counted_by_their_end(seen: Watched) -> None:
    """Every guarded call counts once, by tool, effect and how it ended."""
    for to in ("ada", "ada", "nobody"):
        seen.call(look, to)
    for amount in (1, 1, 2, 75):
        seen.call(pay, "ada" if amount < 50 else "bob", Decimal(amount))
    found = seen.points("agentguard.tool_calls")
    assert found == {  # labels in the order of their names: effect, outcome, tool
        ("read", "ok", "look"): 2,
        ("read", "error", "look"): 1,
        ("write", "ok", "pay"): 1,
        ("write", "duplicate_noop", "pay"): 1,
        ("write", "denied", "pay"): 1,
        ("write", "pending", "pay"): 1,
    }
    times = {
        labels: point.count for labels, point in seen.points("agentguard.tool.duration").items()
    }
    assert times == found


def test_runs_are_counted_by_how_they_came_out(seen: Watched) -> None:
    """Each part that is left counts once; one that waits is pending, and has no cost or time yet."""
    seen.call(look, "ada", run="a")
    seen.call(look, "nobody", run="b")
    seen.call(look, "ada", run="c", max_steps=0)
    seen.call(pay, "ada", Decimal(75), run="d")
    assert seen.points("agentguard.runs") == {
        ("success", "w"): 1,
        ("failure", "w"): 1,
        ("budget_exceeded", "w"): 1,
        ("pending", "w"): 1,
    }
    for name in ("agentguard.run.duration", "agentguard.run.cost_usd"):
        assert seen.points(name)["w",].count == 3


def test_a_run_that_goes_on_elsewhere_is_not_counted(seen: Watched) -> None:
    """Adapters that join a run for a single call leave it running: it has not come out yet."""
    for _ in range(3):
        with seen.guard.run("w", run_id="r", join=True):
            look("ada")
    assert seen.points("agentguard.runs") == {}
    with seen.guard.run("w", run_id="r", join=True) as run:
        run.finish()
    assert seen.points("agentguard.runs") == {("success", "w"): 1}


def test_a_runs_time_leaves_the_wait_for_people_out(seen: Watched) -> None:
    """A resumed run took as long as its parts were executed, not as long as people thought."""
    seen.call(pay, "ada", Decimal(75))
    approval = seen.guard.approvals.list()[0]
    seen.clock.advance(hours=3)
    seen.guard.approvals.decide(approval.id, "approve", by="dana")
    seen.call(pay, "ada", Decimal(75))
    assert seen.points("agentguard.run.duration")["w",].sum < 60


def test_the_wait_for_people_is_measured(seen: Watched) -> None:
    """From the question to the decision, once, whatever the answer is."""
    for to, said in (("ada", "approve"), ("bob", "reject")):
        for _ in range(2):  # whoever asks again while nobody has decided waits for the same answer
            assert isinstance(seen.call(pay, to, Decimal(75)), ApprovalRequired)
        [approval] = seen.guard.approvals.list(status="pending")
        seen.clock.advance(minutes=20)
        seen.guard.approvals.decide(approval.id, said, by="dana", reason="so")
        seen.clock.advance(hours=1)
        seen.call(pay, to, Decimal(75))
    found = {key: (p.count, p.sum) for key, p in seen.points("agentguard.approval.wait").items()}
    assert found == {("approved", "pay"): (1, 1200), ("rejected", "pay"): (1, 1200)}


def test_an_approved_call_that_is_tried_again_waited_once(seen: Watched) -> None:
    """Attempts of one call share its approval, and the wait for it."""
    tries: list[str] = []

    @tool_contract(effect="write", retry=Retry(attempts=3, wait=0))
    @idempotent(key="send:{to}")
    @requires_approval(when="True")
    def send(to: str) -> str:
        tries.append(to)
        if len(tries) < 3:
            raise NoEffect("busy")
        return to

    seen.call(send, "ada")
    [approval] = seen.guard.approvals.list(status="pending")
    seen.clock.advance(minutes=20)
    seen.guard.approvals.decide(approval.id, "approve", by="dana")
    assert (seen.call(send, "ada"), len(tries)) == ("ada", 3)
    (wait,) = seen.points("agentguard.approval.wait").values()
    assert (wait.count, wait.sum) == (1, 1200)


def test_turning_to_people_is_counted_by_its_reason(seen: Watched) -> None:
    """A question, a draft of the agent's stage and a safe ending each count once."""
    seen.call(pay, "ada", Decimal(75))
    seen.call(note, "ada", run="s", autonomy="draft")
    denied = Principal(agent="support", scopes=frozenset())
    assert isinstance(seen.call(drop, "x", run="t", principal=denied), FellBack)
    assert seen.points("agentguard.escalations") == {
        ("approval", "w"): 1, ("draft", "w"): 1, ("fallback_draft", "w"): 1,
    }  # fmt: skip


def test_asking_again_is_no_new_escalation(seen: Watched) -> None:
    """A call that comes again while its question waits turns to nobody once more."""
    seen.call(pay, "ada", Decimal(75))
    seen.clock.advance(minutes=1)
    seen.call(pay, "ada", Decimal(75))
    assert seen.points("agentguard.escalations") == {("approval", "w"): 1}


def test_verdicts_are_counted_by_verifier(seen: Watched) -> None:
    """Verdicts on tools and on whole runs count by verifier and what it said."""

    def breaks(_run: Any, _effects: Any) -> Verdict:
        raise ValueError("no")

    seen.call(note, "ada", run="a")
    seen.call(note, "eve", run="b")
    seen.call(look, "ada", run="c", verified_by=[lambda _run, _effects: True, breaks])
    assert seen.points("agentguard.verifications") == {
        ("confirms", "pass"): 1, ("confirms", "fail"): 1, ("<lambda>", "pass"): 1,
        ("breaks", "unavailable"): 1,
    }  # fmt: skip


def test_costs_are_added_by_kind(seen: Watched) -> None:
    """What models, tools and people cost is added up by workflow; an unknown price adds nothing."""
    guard = Guard("memory://", prices={"m": ("1", "1")})

    def work() -> None:
        call = run.model_started(model="m", messages=[])
        run.model_finished(call, input_tokens=1_000_000, output_tokens=1_000_000)
        unknown = run.model_started(model="of nobody", messages=[])
        run.model_finished(unknown, input_tokens=5, output_tokens=5)
        run.add_cost("human", "0.5")

    with guard.run("w") as run:
        work()
        pay("ada")
        pay("ada")
    guard.close()
    found = seen.points("agentguard.cost_usd")
    assert found == {("human", "w"): 0.5, ("model", "w"): 2.0, ("tool", "w"): 0.1}
    assert seen.points("agentguard.run.cost_usd") == {}  # not known in full, so not measured


def test_a_budget_without_room_is_counted_once(seen: Watched) -> None:
    """A refusal counts by the limit that had no room, however many calls are around it."""

    @tool_contract(effect="read")
    def outer(to: str) -> str:
        return look(to)

    seen.call(outer, "ada", run="a", max_steps=1)

    def model() -> None:
        run.model_started(model="m", messages=[])

    with pytest.raises(Exception, match="max_model_calls"), seen.guard.run(
        "w", run_id="b", max_model_calls=0
    ) as run:  # fmt: skip
        model()
    assert seen.points("agentguard.budget.exceeded") == {
        ("max_steps",): 1, ("max_model_calls",): 1,
    }  # fmt: skip


LABELS = {
    "agentguard.runs": {"gen_ai.workflow.name", "agentguard.run.outcome"},
    "agentguard.run.duration": {"gen_ai.workflow.name"},
    "agentguard.run.cost_usd": {"gen_ai.workflow.name"},
    "agentguard.tool_calls": {
        "gen_ai.tool.name", "agentguard.tool.outcome", "agentguard.tool.effect",
    },
    "agentguard.tool.duration": {
        "gen_ai.tool.name", "agentguard.tool.outcome", "agentguard.tool.effect",
    },
    "agentguard.verifications": {"agentguard.verifier.name", "agentguard.verifier.verdict"},
    "agentguard.escalations": {"gen_ai.workflow.name", "agentguard.escalation.reason"},
    "agentguard.cost_usd": {"gen_ai.workflow.name", "agentguard.cost.kind"},
    "agentguard.budget.exceeded": {"agentguard.budget.name"},
    "agentguard.approval.wait": {"gen_ai.tool.name", "agentguard.approval.status"},
    "agentguard.slo.outcomes": {"agentguard.slo.name", "agentguard.slo.outcome"},
    "agentguard.autonomy.changes": {
        "agentguard.autonomy.name", "agentguard.autonomy.from", "agentguard.autonomy.to",
    },
    "agentguard.artifacts": {"agentguard.artifact.kind", "agentguard.artifact.result"},
}  # fmt: skip


def test_labels_hold_no_ids_and_no_content(seen: Watched) -> None:
    """Runs with telling ids, keys, tenants, people and arguments leave none of them on any metric."""
    who = Principal(agent="agent-007", tenant="acme corp", subject="sub-1", scopes=frozenset())
    for to in ("ada@example.org", "eve", "nobody", "ada@example.org"):
        for tool in (look, note, drop):
            seen.call(tool, to, run=f"run-4711-{to}", principal=who)
        seen.call(pay, to, Decimal(75), "DE44", run=f"run-4711-pay-{to}", principal=who)
    for approval in seen.guard.approvals.list(tenant="acme corp"):
        seen.guard.approvals.decide(approval.id, "approve", by="dana", tenant="acme corp")
    seen.call(pay, "eve", Decimal(75), "DE44", run="run-4711-pay-eve", principal=who)
    seen.call(look, "ada@example.org", run="run-4711-over", principal=who, max_steps=0)
    _metrics.slo_known("fast")
    _metrics.autonomy_changed("pay", "auto", "approve")
    _metrics.artifact("summary", "hit")
    found = {metric.name: metric for metric in seen.metrics()}
    assert set(found) == set(LABELS)
    for name, metric in found.items():
        for point in metric.data.data_points:
            assert set(point.attributes) == LABELS[name]
            told = " ".join(map(str, point.attributes.values()))
            assert not [secret for secret in SECRETS if secret in told]


def test_a_known_objective_has_both_its_series(seen: Watched) -> None:
    """A series that begins at zero shows its first outcome as growth."""
    _metrics.slo_known("fast")
    _metrics.slo_outcome("fast", "bad")
    assert seen.points("agentguard.slo.outcomes") == {("fast", "good"): 0, ("fast", "bad"): 1}


def test_times_have_the_conventions_buckets(seen: Watched) -> None:
    """Tools are measured from a hundredth of a second to 81.92, runs from a second to two hours."""
    seen.call(look, "ada")
    (tool,) = seen.points("agentguard.tool.duration").values()
    (run,) = seen.points("agentguard.run.duration").values()
    assert tool.explicit_bounds == tuple(0.01 * 2**n for n in range(14))
    assert run.explicit_bounds == (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)


def test_where_nothing_is_traced_nothing_is_counted(seen: Watched) -> None:
    """A configuration without traces has no metrics and no events either."""
    settings = config.loads("agent_run:\n  workflow: w\n  logging:\n    trace: 'none'\n")
    guard = Guard("memory://", config=settings, clock=FakeClock())
    with guard.run("w", verified_by=lambda _run, _effects: True):
        look("ada")
        note("ada")
        pay("ada")
    guard.close()
    assert (seen.metrics(), seen.events(), seen.exporter.get_finished_spans()) == ([], [], ())


def test_a_meter_that_breaks_reaches_no_call(
    seen: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When counting fails, calls go on and the log says so once."""

    class Broken:
        def create_counter(self, *_: Any, **__: Any) -> Any:
            raise OSError("disk full")

        create_histogram = create_counter

    monkeypatch.setattr(_metrics, "_METER", Broken())
    monkeypatch.setattr("agentguard._scope._told", set())
    assert [seen.call(look, "ada"), seen.call(pay, "ada")] == ["ada", "ada"]
    told = [
        record.message for record in caplog.records if "agentguard.tool_calls" in record.message
    ]
    assert told == ["telemetry failed in agentguard.tool_calls: disk full; calls go on"]


def test_without_a_provider_metrics_are_not_even_loaded() -> None:
    """A process that has not set OpenTelemetry up loads neither its metrics nor its logs."""
    program = (
        "import sys; from agentguard import Guard, tool_contract\n"
        "@tool_contract(effect='read')\n"
        "def look(to: str) -> str: return to\n"
        "guard = Guard('memory://')\n"
        "with guard.run('w', verified_by=lambda run, effects: True): look('ada')\n"
        "print([m for m in sys.modules if m in ('opentelemetry.metrics', 'opentelemetry._logs')])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


def test_escalations_are_counted_on_a_server(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """By the clock of a database server, too, a question counts once, when it is asked."""
    seen = Watched(monkeypatch)
    guard = Guard(postgres_url, principal=Principal(agent="support"))
    for _ in range(2):
        with pytest.raises(ApprovalRequired), guard.run("w", run_id="r"):
            pay("ada", Decimal(75))
    guard.close()
    assert seen.points("agentguard.escalations") == {("approval", "w"): 1}
    seen.close()
