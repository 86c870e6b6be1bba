"""The public API as type checkers see it: read by mypy and pyright, never run.

One `assert_type` for each public call, sync and async, so that a change of what users' editors
infer is seen here first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

from langchain.agents import create_agent
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel  # pyright: ignore[reportMissingTypeStubs] - it has none
from semantic_kernel.contents import ChatHistory
from semantic_kernel.kernel import Kernel

from agentguard import (
    ApprovalRequired,
    BudgetExceeded,
    EffectInDoubt,
    EffectRecordingFailed,
    Guard,
    GuardError,
    Happened,
    NoEffect,
    NotHappened,
    Principal,
    RateLimited,
    Retry,
    Unknown,
    Verdict,
    budget,
    configure,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
    workflow,
)
from agentguard.hosting import CallRef, Host, ModelCall, Run, active_run, register_injected
from agentguard.model import Approval, Effect, Event, Limits, RunInfo, Usage
from agentguard.prices import Price, Prices, Tokens, genai_prices
from agentguard.prompts import Prompt
from agentguard.record import Spending, spent
from agentguard.testing import (
    Case,
    FakeClock,
    Person,
    Report,
    assert_waiting,
    assert_within_budget,
    assert_wrote_once,
    check_idempotent,
    override,
)
from agentguard_langgraph import GuardMiddleware, LangGraphHost, guard_graph, guard_tools
from agentguard_semantic_kernel import SemanticKernelHost, guard_kernel, questions


@dataclass
class Refund:
    """What a tool returns."""

    id: str
    amount_usd: Decimal


# Decorators leave a function's type as it is, in any order, sync and async, and on methods.


@tool_contract(effect="read")
def look_up(ticket_id: str) -> Refund:
    """Return a refund."""
    return Refund(ticket_id, Decimal())


def find_refund(call: Any) -> Happened | NotHappened | Unknown:
    """Look for a refund."""
    return Happened(look_up(call.arguments["ticket_id"])) if call else Unknown("nobody is there")


def is_right(arguments: Mapping[str, Any], result: Refund) -> Verdict:
    """Compare what was asked with what was done."""
    same = arguments["amount_usd"] == result.amount_usd
    return Verdict(passed=same, confidence=1.0, reason="", diff={})


@tool_contract(
    effect="write", name="refund", version="2", scopes=["refunds:write"],
    facts={"refund_usd": "amount_usd"}, timeout=10, retry=Retry(attempts=3, on=(OSError,)),
    rate_limit="5/second", sensitive=["note"], irreversible=True, fails_when=lambda r: r is None,
    strict=True, classify="doubt",
)  # fmt: skip
@idempotent(
    key="refund:{ticket_id}", scope="tenant", retention="30d", reconcile=find_refund,
    on_doubt="reconcile", downstream_dedupe="24h", volatile=["note"],
)  # fmt: skip
@requires_approval(
    when="amount_usd > 50", roles=["finance"], quorum=2, expires="4h", allow_edit=True
)
@budget(max_calls=3, max_spend_usd="200", cost="amount_usd", per="day")
@verified_by(is_right, by="ledger", require="rule", minimum_confidence=0.8, timeout=5)
async def issue_refund(ticket_id: str, amount_usd: Decimal, note: str = "") -> Refund:
    """Pay money back."""
    call = current_run().call
    assert_type(call.idempotency_key, str)
    assert_type(call.deadline, dt.datetime | None)
    assert_type(call.fence, int)
    if note:
        raise NoEffect(note, retryable=False)
    return Refund(ticket_id, amount_usd)


class Desk:
    """A class whose methods are tools."""

    @tool_contract(effect="write", isolation="thread", timeout=2.5)
    @idempotent(per="call")
    def close(self, ticket_id: str) -> bool:
        """Close a ticket."""
        return bool(ticket_id)


@workflow
def triage(ticket_id: str) -> Refund:
    """Look at a ticket."""
    run = current_run()
    run.plan([{"tool": look_up, "arguments": {"ticket_id": ticket_id}}], outside="refuse")
    run.follow("refund", ticket_id=ticket_id)
    run.add_cost("retrieval", Decimal("0.1"), note="search", ahead=True)
    run.add_human_minutes(2.5, by="dana")
    return look_up(ticket_id)


@budget(max_steps=3, max_spend_usd="0.40", loops="off")
@workflow(
    "refunds", run_id="r-{ticket_id}", principal=lambda ticket_id: Principal(tenant=ticket_id)
)
async def refund_all(ticket_id: str) -> int:
    """Pay for a ticket."""
    await current_run().aplan([{"tool": "issue_refund"}])
    return len(ticket_id)


async def workflows(guard: Guard) -> None:
    """Call workflows, and estimate them."""
    assert_type(triage("T-1"), Refund)
    assert_type(await refund_all(ticket_id="T-1"), int)
    found = guard.estimate("refund", tools=[look_up], parameters={"ticket_id": "T-1"}, max_steps=3)
    assert_type(found.fits, bool | None)
    assert_type(found.total_usd, Decimal)


def calls() -> None:
    """Call guarded functions outside any run."""
    assert_type(look_up("T-1"), Refund)
    assert_type(look_up(ticket_id="T-1"), Refund)
    assert_type(Desk().close("T-1"), bool)
    look_up(17)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - seen as before


async def async_calls() -> None:
    """Await a guarded coroutine function."""
    assert_type(await issue_refund("T-1", Decimal(20)), Refund)
    assert_type(await issue_refund(ticket_id="T-1", amount_usd=Decimal(20), note="x"), Refund)


# The guard.


def guards() -> Guard:
    """Make guards in every way."""
    who = Principal("agent", tenant="acme", subject="kim", version="1", scopes=frozenset({"a"}))
    plain = Guard("memory://", principal=who, prices={"small": ("0.15", "0.60")})
    assert_type(plain, Guard)
    assert_type(Guard.from_config("agent_run.yaml", store="memory://", prices=price), Guard)
    assert_type(configure(plain), Guard)
    assert_type(configure(store="memory://"), Guard)
    assert_type(plain.check([look_up, issue_refund]), list[str])
    assert_type(
        plain.protect(look_up, effect="read", name="other", input_schema={}, output_schema={}),
        Callable[..., Any],
    )
    plain.kill(tool="refund", by="dana", reason="wrong amounts")
    plain.kill(all=True, by="dana", reason="it is over", lift=True)
    return plain


def price(model: str, asked: int, answered: int) -> Decimal | None:
    """Know no price."""
    del model, asked, answered
    return None


def runs(guard: Guard) -> None:
    """Enter a run, and read its record."""
    with guard.run("w", run_id="r-1", principal=Principal(), autonomy="auto", max_steps=10) as run:
        assert_type(run, Run)
        assert_type((run.id, run.workflow, run.part), tuple[str, str, int])
        assert_type((run.usage, run.limits), tuple[Usage, Limits])
        assert_type(current_run(), Run)
        assert_type(active_run(), Run | None)
        run.waiting("for a person")
        with run.tool_call("call-1", occurrence=1):
            look_up("T-1")
        started = run.model_started(model="m", messages=[], call_id="x", max_output_tokens=9,
                                    prompt=("p", None))  # fmt: skip
        assert_type(started, ModelCall)
        run.model_finished(started, output="", input_tokens=1, output_tokens=1, cached_tokens=0,
                           cache_write_tokens=0)  # fmt: skip
    assert_type(guard.runs.list(status="waiting", tenant="acme", limit=5), list[RunInfo])
    assert_type(guard.runs.show("r-1"), RunInfo)
    assert_type(guard.runs.events("r-1", after=3), list[Event])
    assert_type(guard.runs.verify("r-1"), str | None)
    guard.runs.cancel("r-1", by="dana", reason="not needed")


async def async_runs(guard: Guard) -> None:
    """Enter a run on an event loop."""
    async with guard.run("w", max_spend_usd="0.40", max_seconds=2.5) as run:
        assert_type(run, Run)
        started = await run.amodel_started(model="m", messages=[], prompt=Prompt("p", "1"))
        await run.amodel_finished(started, error=OSError())


def costs(guard: Guard) -> None:
    """Ask what models cost, and what results do."""
    now = dt.datetime.now(dt.UTC)
    assert_type(guard.prices, Prices)
    assert_type(genai_prices().price("m", Tokens(1, 1), now), Price | None)
    (found,) = spent(guard.store, workflow="w", since="7d", last=100, tenant="acme")
    assert_type(found, Spending)
    assert_type(found.per_verified, Decimal | None)


def operations(guard: Guard) -> None:
    """Decide and rule."""
    assert_type(guard.approvals.list("pending", tenant="acme", limit=1), list[Approval])
    assert_type(guard.approvals.show("ap_1"), Approval)
    decided = guard.approvals.decide(
        "ap_1", "edit", by="dana", reason="", roles=["finance"], edits={"note": ""}, generation=1,
        tenant="acme",
    )  # fmt: skip
    assert_type(decided, Approval)
    assert_type(guard.effects.list("in_doubt", run_id="r-1", limit=1), list[Effect])
    assert_type(guard.effects.show("ag1_1"), Effect)
    assert_type(guard.effects.resolve("ag1_1", "failed", by="dana", reason="seen"), Effect)
    guard.close()


# Errors.


def errors() -> None:
    """Catch what is raised, and read what it carries."""
    try:
        look_up("T-1")
    except ApprovalRequired as error:
        assert_type(error.for_model(), str)
    except BudgetExceeded as error:
        assert_type((error.budget, error.limit, error.used), tuple[str, str, str])
    except EffectRecordingFailed as error:
        assert_type(error.effect_id, str)
    except EffectInDoubt as error:
        assert_type((error.effect_id, error.reason), tuple[str, str])
    except RateLimited as error:
        assert_type(error.retry_after, float)
    except GuardError as error:
        assert_type((error.retryable, error.halts), tuple[bool, bool])
        assert_type((error.run_id, error.step), tuple[str | None, int | None])


# Adapters.


class OtherHost(Host):
    """A runtime of one's own."""

    name = "other"
    control_flow = (KeyError,)

    def call(self) -> CallRef | None:
        """Say which call this is."""
        return CallRef("call-1", occurrence=0, agent="planner")

    def failure(self, error: GuardError) -> BaseException:
        """Dress an error."""
        return error


def adapters(guard: Guard, graph: Pregel[Any, Any, Any, Any]) -> None:
    """Wrap a graph, tools and an agent."""
    assert_type(
        guard_graph(graph, guard, workflow="w", principal=Principal(), run_id="r-1", max_steps=3),
        Pregel[Any, Any, Any, Any],
    )
    assert_type(guard_tools([], guard, effect="read"), list[BaseTool])
    middleware = GuardMiddleware(guard, workflow="w", run_id=lambda _config: None, max_steps=3)
    create_agent("model", middleware=[middleware])
    guard.run("w", host=LangGraphHost(guard))
    register_injected(lambda parameter: parameter.name == "context")


def tests(guard: Guard, folder: Path) -> None:
    """Use what tests use."""
    clock = FakeClock("2026-01-05T09:00:00+00:00")
    clock.advance(90)
    clock.advance(hours=4)
    person = Person(Guard("memory://", clock=clock), "approve", by="dana", reason="it is right")
    guard.run("w", host=person)
    assert_type([waited.id for waited in person(tool="refund", run_id="r-1")], list[str])
    assert_type(assert_wrote_once(guard, tool=issue_refund, arguments={}, key="ag1_").fence, int)
    assert_type(assert_waiting(guard, tool="refund", run_id="r-1").rule, str)
    assert_type(assert_within_budget(guard, run_id="r-1", max_spend_usd="0.40").spent_usd, Decimal)
    report = check_idempotent(
        issue_refund, lambda number: {"ticket_id": f"T-{number}"}, backend=list[str], reset=None,
        config=folder / "agent_run.yaml", principal=Principal(), patience=9.5,
    )  # fmt: skip
    assert_type(report, Report)
    assert_type(report.ok, bool)
    assert_type(report.doubts, tuple[Case, ...])
    check_idempotent(look_up, {"ticket_id": "T-1"}, backend=folder / "journal")
    with override(guard) as configured:
        assert_type(configured, Guard)


def wrap_semantic_kernel(guard: Guard, kernel: Kernel) -> None:
    """Wrap a kernel, and ask what waits."""
    guarded = guard_kernel(
        kernel,
        guard,
        workflow="w",
        principal=Principal(),
        run_id=lambda _arguments: None,
        max_steps=3,
    )
    assert_type(guarded, Kernel)
    assert_type(questions(ChatHistory()), list[dict[str, Any]])
    guard.run("w", host=SemanticKernelHost())
