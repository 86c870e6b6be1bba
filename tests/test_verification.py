"""Who confirms outcomes: somebody else than who proposed them, in order, and never by an outage."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentguard import (
    ConfigurationError,
    Guard,
    GuardError,
    Happened,
    PermissionDenied,
    Principal,
    Verdict,
    VerificationFailed,
    budget,
    compensated_by,
    config,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard._names import same_model
from agentguard.cli import main
from agentguard.verifiers import Evidence, VerifierIdentity, model_verifier
from tests.fixtures import guard, world
from tests.support import World

__all__ = ["guard", "world"]

YES = '{"passed": true, "confidence": 0.9, "reason": "as asked"}'


class Judge:
    """A verifier that asks a model, as it says."""

    def __init__(self, model: str = "judge-1", **identity: Any) -> None:
        self.identity = VerifierIdentity("model", "judge", model=model, **identity)
        self.asked: list[tuple[Any, ...]] = []
        self.says: Any = Verdict(passed=True, confidence=0.9)

    def __call__(self, arguments: Any, result: Any, evidence: Any = None) -> Any:
        """Answer as told."""
        self.asked.append((arguments, result, evidence))
        return self.says


def person(_arguments: Any, _result: Any) -> bool:
    """Somebody who looks at everything."""
    return True


person.identity = VerifierIdentity("person", "dana")  # type: ignore[attr-defined] # as users do


def write(world: World, *decorators: Any, **contract: Any) -> Any:
    """A tool that lets one effect happen for each name."""

    def pay(name: str, amount_usd: Decimal = Decimal(0)) -> str:
        del amount_usd
        return world.happen(name)

    tool: Any = tool_contract(effect="write", **contract)(pay)
    for decorate in (idempotent(key="{name}"), *decorators):
        tool = decorate(tool)
    return tool


def settings(text: str) -> config.Settings:
    """The settings that a file holds with these lines under `agent_run`."""
    lines = "\n".join(f"  {line}" for line in text.splitlines())
    return config.loads(f"agent_run:\n{lines}\n")


def one(guard: Guard) -> Any:
    """The only effect on record."""
    [effect] = guard.effects.list()
    return effect


def said(guard: Guard, run_id: str = "r") -> list[Mapping[str, Any]]:
    """What verifiers said, as the record has it."""
    return [event.data for event in guard.runs.events(run_id) if event.kind == "verified"]


# Separation of duties.


@pytest.mark.parametrize(
    ("proposer", "verifier"),
    [
        ("gpt-x", "gpt-x"),
        ("openai:gpt-x", "gpt-x"),
        ("gpt-x", "azure/gpt-x"),
        ("openrouter/openai/gpt-x:free", "openai:GPT-X"),
        ("gpt-x-2026-05-13", "gpt-x"),
        ("gpt-x-latest", "gpt-x-0613"),
        ("us.anthropic.claude-z-20261022-v2:0", "anthropic:claude-z"),
        ("claude-z@20261022", "claude-z"),
        ("models/gemini_q", "gemini-q-001"),
        ("ollama:llama9:8b", "llama9:8b"),
        ("anthropic:claude", "claude"),
        ("gpt-x\u200b", "\uff47pt-x"),
    ],
)
def test_a_model_is_known_by_its_aliases(proposer: str, verifier: str) -> None:
    """Provider, tag, date and spelling make no other model of one."""
    assert same_model(proposer, verifier)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt-x", "gpt-x-mini"),
        ("gpt-4.1", "gpt-4.2"),
        ("llama9:8b", "llama9:70b"),
        ("ollama:llama9:8b", "ollama:mistral9:8b"),
        ("llama9:instruct", "qwen9:instruct"),
        ("claude-z-v1", "claude-z-v2"),
        ("openai:gpt-x", "openai:gpt-y"),
        ("scripted-1", "scripted-2"),
    ],
)
def test_other_models_are_other_models(one: str, other: str) -> None:
    """Two models of one family, or of one provider, are two."""
    assert not same_model(one, other)


def test_a_verifier_that_is_the_proposer_is_refused_before_the_start(
    guard: Guard, world: World
) -> None:
    """The principal's own model, through another object and another name, confirms nothing."""
    judge = Judge("openai:gpt-x")
    tool = write(world, verified_by(judge))
    with (
        guard.run("w", principal=Principal(model="gpt-x-2026-01-01")),
        pytest.raises(ConfigurationError, match=r"the same as gpt-x-2026-01-01.*another"),
    ):
        tool("a")
    assert (world.effects, judge.asked, guard.effects.list()) == ([], [], [])


@pytest.mark.parametrize("role", ["planner_model", "executor_model"])
def test_a_verifier_of_a_routed_model_is_refused_at_bind(world: World, role: str) -> None:
    """Which model proposes is known from the configuration, so nothing has to be called."""
    guard = Guard("memory://", config=settings(f'routing: {{{role}: "openai:gpt-x"}}'))
    [problem] = guard.check([write(world, verified_by(Judge("gpt-x")))])
    assert "the verifier judge asks gpt-x (the same as openai:gpt-x)" in problem


def test_the_routed_verifier_may_verify(world: World) -> None:
    """The model that is routed to verify is no proposer."""
    guard = Guard("memory://", config=settings('routing: {verifier_model: "gpt-v"}'))
    assert guard.check([write(world, verified_by(Judge("gpt-v")))]) == []


def test_a_verifier_is_refused_that_the_run_has_really_called(guard: Guard, world: World) -> None:
    """What the run has called proposes its calls, whatever anybody has declared."""
    tool = write(world, verified_by(Judge("gpt-x")))
    with guard.run("w") as run:
        assert tool("a") == "done a"
        run.model_finished(run.model_started(model="azure/gpt-x", messages=[]))
        with pytest.raises(ConfigurationError, match="azure/gpt-x"):
            tool("b")
    assert world.effects == ["a"]


def test_what_an_earlier_part_of_the_run_has_called_counts(guard: Guard, world: World) -> None:
    """The record knows which models proposed, also after the process is another."""
    tool = write(world, verified_by(Judge("gpt-x")))
    with guard.run("w", run_id="r") as run:
        run.model_finished(run.model_started(model="gpt-x", messages=[]))
    with guard.run("w", run_id="r"), pytest.raises(ConfigurationError, match="gpt-x"):
        tool("a")
    assert world.effects == []


async def test_on_a_server_it_is_the_same(postgres_url: str, world: World) -> None:
    """On PostgreSQL, on an event loop, by another process's record: nothing runs."""
    guard = Guard(postgres_url)

    @verified_by(Judge("gpt-x"))
    @idempotent(key="{name}")
    @tool_contract(effect="write", evidence=lambda _arguments: world.effects)
    async def pay(name: str) -> str:
        return world.happen(name)

    async with guard.run("w", run_id="r") as run:
        assert await pay("a") == "done a"
        await run.amodel_finished(await run.amodel_started(model="gpt-x", messages=[]))
    async with guard.run("w", run_id="r", verified_by=lambda _run, effects: len(effects) == 1):
        with pytest.raises(ConfigurationError, match="gpt-x"):
            await pay("b")
        assert await pay("a") == "done a"
    assert (world.effects, guard.runs.show("r").status) == (["a"], "succeeded")
    assert guard.runs.verify("r") is None
    guard.close()


def test_a_refused_verifier_is_on_record(guard: Guard, world: World) -> None:
    """The refusal takes a step and says why, as every refusal does."""
    with (
        guard.run("w", run_id="r", principal=Principal(model="gpt-x")),
        pytest.raises(ConfigurationError),
    ):
        write(world, verified_by(Judge("gpt-x")))("a")
    [decided] = [event for event in guard.runs.events("r") if event.kind == "step.decided"]
    assert (decided.data["decision"], decided.data["error"]) == ("deny", "configuration_error")
    assert "which proposes the calls" in decided.data["reason"]


def test_what_was_done_is_told_whoever_proposes_now(guard: Guard, world: World) -> None:
    """A repeat of a finished effect runs nothing, so it needs no verifier."""
    tool = write(world, verified_by(Judge("gpt-x")))
    with guard.run("w"):
        tool("a")
    with guard.run("w", principal=Principal(model="gpt-x")):
        assert tool("a") == "done a"
    assert world.effects == ["a"]


def test_a_fallback_of_the_verifier_counts_as_its_model(guard: Guard, world: World) -> None:
    """A verifier that may fall back to the proposer is the proposer."""
    tool = write(world, verified_by(Judge("judge-1", others=("gpt-x",))))
    with (
        guard.run("w", principal=Principal(model="gpt-x")),
        pytest.raises(ConfigurationError, match="asks gpt-x"),
    ):
        tool("a")


@pytest.mark.parametrize(
    "wrap",
    [
        functools.partial,
        lambda judge: functools.wraps(judge)(judge),
        lambda judge: judge.__call__,
    ],
    ids=["partial", "wraps", "bound method"],
)
def test_a_wrapped_verifier_is_still_itself(
    guard: Guard, world: World, wrap: Callable[[Any], Any]
) -> None:
    """What Python wraps around a callable does not hide who it is."""
    tool = write(world, verified_by(wrap(Judge("gpt-x"))))
    with guard.run("w", principal=Principal(model="gpt-x")), pytest.raises(ConfigurationError):
        tool("a")
    assert world.effects == []


def test_a_verifier_hidden_in_a_lambda_does_not_judge_its_own_proposal(
    guard: Guard, world: World
) -> None:
    """Where nobody could see the model before, it refuses to judge, and that is no yes."""
    asked: list[Any] = []

    def ask(messages: Any) -> str:
        asked.append(messages)
        return YES

    hidden = model_verifier(ask, "ok", model="gpt-x")
    tool = write(world, verified_by(lambda arguments, result: hidden(arguments, result)))  # noqa: PLW0108 - hides it
    with (
        guard.run("w", principal=Principal(model="openai:gpt-x")),
        pytest.raises(VerificationFailed, match="gpt-x has proposed this itself"),
    ):
        tool("a")
    assert (asked, one(guard).doubt_reason) == ([], "verifier_failed")


def test_a_rule_that_asks_the_proposer_is_caught_when_it_does(guard: Guard, world: World) -> None:
    """A model call of a verifier is reported like every other, and refused for the proposer."""

    def sly(_arguments: Any, _result: Any) -> bool:
        run.model_finished(run.model_started(model="openai:gpt-x", messages=["is this right?"]))
        return True

    with (
        guard.run("w", principal=Principal(model="gpt-x")) as run,
        pytest.raises(VerificationFailed, match="the model that proposed the call") as failed,
    ):
        write(world, verified_by(sly))("a")
    assert failed.value.unavailable


def test_the_models_that_verify_have_proposed_nothing(guard: Guard, world: World) -> None:
    """A verifier's own calls are on record under its name and do not make it a proposer."""

    def judging(_messages: Any) -> str:
        run.model_finished(run.model_started(model="judge-1", messages=["?"]), input_tokens=3)
        return YES

    tool = write(world, verified_by(model_verifier(judging, "ok", model="judge-1")))
    with guard.run("w", run_id="r") as run:
        tool("a")
        tool("b")
    with guard.run("w", run_id="r") as run:
        tool("c")
    calls = [event.data for event in guard.runs.events("r") if event.kind == "model.called"]
    assert [call["verifier"] for call in calls] == ["model_verifier"] * 3
    assert guard.runs.show("r").input_tokens == 9


def test_nobody_verifies_their_own_code(world: World, guard: Guard) -> None:
    """A verifier of the team that owns the tool is refused, however the team is spelled."""
    own = verified_by(Judge(owner="Payments "))
    [problem] = guard.check([write(world, own, owner="payments")])
    assert "owned by Payments" in problem
    assert "another team" in problem
    assert guard.check([write(world, verified_by(Judge(owner="risk")), owner="payments")]) == []


def test_a_read_may_not_be_verified_by_its_proposer_either(guard: Guard) -> None:
    """Reads have no start transaction, and are refused all the same."""
    body: list[int] = []

    @verified_by(Judge("gpt-x"))
    @tool_contract(effect="read")
    def look() -> None:
        body.append(1)

    with guard.run("w", principal=Principal(model="gpt-x")), pytest.raises(ConfigurationError):
        look()
    assert body == []


async def test_async_tools_are_held_to_the_same(guard: Guard) -> None:
    """Separation of duties has one implementation for both colours."""
    body: list[int] = []

    @verified_by(Judge("gpt-x"))
    @idempotent(per="call")
    @tool_contract(effect="write")
    async def pay() -> None:
        body.append(1)

    async with guard.run("w", principal=Principal(model="gpt-x")):
        with pytest.raises(ConfigurationError):
            await pay()
    assert body == []


# Independence.


def test_what_nothing_can_undo_needs_another_model(guard: Guard, world: World) -> None:
    """An irreversible tool that is verified by rules alone is refused where it is bound."""
    rules = write(world, verified_by(lambda _a, _r: True), irreversible=True)
    [problem] = guard.check([rules])
    assert "needs the verification class model, and it has rule: add a verifier" in problem
    assert guard.check([write(world, verified_by(Judge()), irreversible=True)]) == []
    assert guard.check([write(world, irreversible=True)]) == []  # as it always was


def test_the_configuration_can_ask_for_a_person_too(world: World) -> None:
    """`verification.irreversible: model+person` needs a rule that always asks."""
    guard = Guard("memory://", config=settings("verification: {irreversible: model+person}"))
    judged = verified_by(Judge())
    [problem] = guard.check([write(world, judged, irreversible=True)])
    assert "@requires_approval()" in problem
    sometimes = requires_approval(when="amount_usd > 5")
    assert len(guard.check([write(world, judged, sometimes, irreversible=True)])) == 1
    assert guard.check([write(world, judged, requires_approval(), irreversible=True)]) == []


def test_code_can_ask_for_a_class(guard: Guard, world: World) -> None:
    """`require=` is what the author of a tool demands of those who change its verifiers."""
    [problem] = guard.check([write(world, verified_by(lambda _a, _r: True, require="model"))])
    assert "require='model' needs the verification class model" in problem
    both = verified_by(Judge(), person, require="model+person")
    assert guard.check([write(world, both)]) == []


SPEND = 'verification: {spend_usd_over: {"50": model, "500": model+person}}'


def test_spending_over_a_threshold_needs_its_class(world: World) -> None:
    """Below the threshold a rule is enough; above it nothing starts."""
    guard = Guard("memory://", config=settings(SPEND))
    cost = budget(cost="amount_usd", max_spend_usd=10_000)
    tool = write(world, cost, verified_by(lambda _a, _r: True))
    with guard.run("w", run_id="r"):
        assert tool("a", Decimal(50)) == "done a"
        with pytest.raises(PermissionDenied, match=r"50.01 US dollars needs .* class model"):
            tool("b", Decimal("50.01"))
    assert world.effects == ["a"]
    denied = [e.data["error"] for e in guard.runs.events("r") if e.kind == "step.decided"]
    assert denied == ["permission_denied"]


def test_a_threshold_above_a_threshold_needs_more(world: World) -> None:
    """A model suffices between the two, and no longer above the second."""
    guard = Guard("memory://", config=settings(SPEND))
    cost = budget(cost="amount_usd", max_spend_usd=10_000)
    tool = write(world, cost, verified_by(Judge()))
    with guard.run("w"):
        assert tool("a", Decimal(500)) == "done a"
        with pytest.raises(PermissionDenied, match=r"class model\+person, and it has model"):
            tool("b", Decimal(501))


def test_a_fact_in_dollars_counts_as_spending(world: World) -> None:
    """A tool that declares what it moves needs no budget to be held to a threshold."""
    guard = Guard("memory://", config=settings(SPEND))
    tool = write(world, facts={"refund_usd": "amount_usd"})
    with guard.run("w"):
        assert tool("a", Decimal(3)) == "done a"
        with pytest.raises(PermissionDenied, match="and it has nobody"):
            tool("b", Decimal(51))


def test_a_fixed_cost_over_a_threshold_is_refused_at_bind(world: World) -> None:
    """What every call costs is known before any call."""
    guard = Guard("memory://", config=settings(SPEND))
    [problem] = guard.check([write(world, budget(cost=60))])
    assert "a cost over 50 US dollars needs the verification class model" in problem


def test_an_amount_that_an_approver_raises_is_held_to_the_threshold(world: World) -> None:
    """What people edit is judged like what the agent asked for."""
    guard = Guard("memory://", config=settings(SPEND))
    asks = requires_approval(allow_edit=True)
    tool = write(world, asks, facts={"refund_usd": "amount_usd"})
    with guard.run("w", run_id="r"), pytest.raises(GuardError, match="waits for a person"):
        tool("a", Decimal(5))
    [waiting] = guard.approvals.list()
    guard.approvals.decide(waiting.id, "edit", by="dana", edits={"amount_usd": "70"}, reason="more")
    guard.approvals.decide(waiting.id, "approve", by="erin", reason="fine")
    with guard.run("w", run_id="r"), pytest.raises(PermissionDenied, match=r"70.00 US dollars"):
        tool("a", Decimal(5))
    assert world.effects == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("verification: {irreversible: rule}", "verification.irreversible must be 'model'"),
        ("verification: {spend_usd_over: {fifty: model}}", 'an amount such as "50"'),
        ('verification: {spend_usd_over: {"50": twice}}', "must be 'rule', 'model' or"),
        ("verification: {irreversibel: model}", "did you mean 'irreversible'"),
    ],
)
def test_a_file_that_would_not_be_obeyed_is_refused(line: str, says: str) -> None:
    """Each mistake has a line and a mend."""
    with pytest.raises(ConfigurationError, match=r"agent_run.yaml:2:") as refused:
        settings(line)
    assert says in refused.value.message


def test_the_policy_version_changes_with_what_verification_demands() -> None:
    """Approvals are bound to the policy, and this is part of it."""
    versions = {settings(text).version for text in ("max_steps: 5", f"max_steps: 5\n{SPEND}")}
    assert len(versions) == 2


# The order of asking.


def test_rules_are_asked_before_models_and_people_last(guard: Guard, world: World) -> None:
    """The order on the page has no meaning: cheap and certain comes first."""
    judge = Judge()
    with guard.run("w", run_id="r"):
        write(world, verified_by(person, judge, lambda _a, _r: True))("a")
    assert [verdict["kind"] for verdict in said(guard)] == ["rule", "model", "person"]


def test_the_first_no_ends_the_asking(guard: Guard, world: World) -> None:
    """No model is asked about what a rule has refuted."""
    judge = Judge()
    with guard.run("w", run_id="r"), pytest.raises(VerificationFailed):
        write(world, verified_by(judge, lambda _a, _r: False))("a")
    assert judge.asked == []


def test_a_final_yes_ends_the_asking(guard: Guard, world: World) -> None:
    """A rule that is certain saves the model."""
    judge = Judge()
    certain = verified_by(judge, lambda _a, _r: Verdict(passed=True, final=True))
    with guard.run("w", run_id="r"):
        write(world, certain)("a")
    assert judge.asked == []
    assert [verdict["final"] for verdict in said(guard)] == [True]


def test_a_final_yes_of_a_rule_does_not_replace_the_model_that_is_demanded(
    guard: Guard, world: World
) -> None:
    """Where another model has to look, a rule cannot send it away."""
    judge = Judge()
    certain = verified_by(judge, lambda _a, _r: Verdict(passed=True, final=True))
    with guard.run("w"):
        write(world, certain, irreversible=True)("a")
    assert len(judge.asked) == 1


# What counts as a yes.


def breaks(_arguments: Any, _result: Any) -> bool:
    """A verifier that is down."""
    raise ConnectionError("the model is not there")


def test_an_outage_of_a_verifier_is_no_yes(guard: Guard, world: World) -> None:
    """A broken verifier is told apart from one that says no, and confirms as little."""
    with guard.run("w", run_id="r"), pytest.raises(VerificationFailed) as failed:
        write(world, verified_by(breaks))("a")
    assert (failed.value.unavailable, failed.value.verifier) == (True, "breaks")
    assert "verifier unavailable: it failed with ConnectionError" in failed.value.message
    assert json.loads(failed.value.for_model())["unavailable"] is True
    [verdict] = said(guard)
    assert (verdict["passed"], verdict["unavailable"]) == (False, True)
    assert (one(guard).state, one(guard).doubt_reason) == ("in_doubt", "verifier_failed")


def test_a_no_is_no_outage(guard: Guard, world: World) -> None:
    """Who says no was there."""
    with guard.run("w"), pytest.raises(VerificationFailed) as failed:
        write(world, verified_by(lambda _a, _r: Verdict(False, 0.7, "wrong ticket")))("a")
    assert not failed.value.unavailable
    assert failed.value.confidence == "0.7"


def test_an_outage_undoes_nothing(guard: Guard, world: World) -> None:
    """Nobody has found anything wrong: what a broken verifier leaves is in doubt, not undone."""
    undo: Any = compensated_by(lambda result: world.happen(f"undo {result}"))
    with guard.run("w"), pytest.raises(VerificationFailed) as failed:
        write(world, verified_by(breaks), undo)("a")
    assert failed.value.unavailable
    assert world.effects == ["a"]
    assert one(guard).state == "in_doubt"


def test_what_a_verifier_has_refuted_is_undone(guard: Guard, world: World) -> None:
    """A no is different: it did happen, somebody has looked, and it was wrong."""
    undo: Any = compensated_by(lambda result: world.happen(f"undo {result}"))
    with guard.run("w"), pytest.raises(VerificationFailed) as failed:
        write(world, verified_by(lambda _a, _r: False), undo)("a")
    assert not failed.value.unavailable
    assert world.effects == ["a", "undo done a"]


def test_a_verifier_that_does_not_answer_in_time_is_unavailable(guard: Guard, world: World) -> None:
    """Nobody waits for ever to hear a yes."""
    never = threading.Event()
    slow = verified_by(lambda _a, _r: never.wait(60), timeout=0.05)
    try:
        with guard.run("w"), pytest.raises(VerificationFailed, match=r"within 0\.05 s") as failed:
            write(world, slow)("a")
    finally:
        never.set()
    assert failed.value.unavailable


async def test_an_async_verifier_that_does_not_answer_in_time_is_cancelled(guard: Guard) -> None:
    """On an event loop the deadline cancels."""
    ended: list[str] = []

    async def slow(_arguments: Any, _result: Any) -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return True

    @verified_by(slow, timeout=0.01)
    @idempotent(per="call")
    @tool_contract(effect="write")
    async def pay() -> None:
        """Pay."""

    async with guard.run("w"):
        with pytest.raises(VerificationFailed, match=r"within 0.01 s"):
            await pay()
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (Verdict(passed=True, confidence=0.6), "confidence 0.6 below 0.8"),
        (Verdict(passed=True), "it gave no confidence, 0.8 is needed"),
        (Verdict(passed=True, confidence=1.5), "confidence 1.5 is not from 0 to 1"),
        (Verdict(passed=True, confidence=float("nan")), "confidence nan is not from 0 to 1"),
        (Verdict(passed="no"), "neither True nor False"),  # type: ignore[arg-type] # as users do
    ],
)
def test_a_yes_that_is_not_sure_is_a_no(
    guard: Guard, world: World, verdict: Verdict, says: str
) -> None:
    """Below the minimum, without a confidence or with nonsense in its place nothing is confirmed."""
    judge = Judge()
    judge.says = verdict
    with guard.run("w"), pytest.raises(VerificationFailed, match=says):
        write(world, verified_by(judge, minimum_confidence=0.8))("a")


@pytest.mark.parametrize("sure", [0.8, "0.80", Decimal("0.8"), 1])
def test_a_yes_that_is_sure_enough_is_a_yes(guard: Guard, world: World, sure: Any) -> None:
    """The minimum itself suffices, and rules need no confidence."""
    judge = Judge()
    judge.says = Verdict(passed=True, confidence=sure)
    both = verified_by(judge, lambda _a, _r: True, minimum_confidence=Decimal("0.8"))
    with guard.run("w"):
        assert write(world, both)("a") == "done a"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"minimum_confidence": 2}, "not from 0 to 1"),
        ({"timeout": 0}, "above zero"),
        ({"require": "person"}, 'require is "rule"'),
    ],
)
def test_options_that_do_not_fit_are_refused_where_they_stand(
    options: dict[str, Any], says: str
) -> None:
    """A declaration that would not be obeyed is none."""
    with pytest.raises(ConfigurationError, match=says):
        verified_by(Judge(), **options)


@pytest.mark.parametrize(
    ("kind", "identity", "says"),
    [
        ("machine", {}, 'kind is "rule"'),
        ("model", {}, "names its model"),
        ("rule", {"model": "m"}, "no other does"),
    ],
)
def test_an_identity_that_contradicts_itself_is_refused(
    kind: Any, identity: dict[str, Any], says: str
) -> None:
    """A model has an id, and what has one is a model."""
    with pytest.raises(ConfigurationError, match=says):
        VerifierIdentity(kind, "v", **identity)


# Evidence.


def test_verifiers_see_the_world_before_and_after(guard: Guard, world: World) -> None:
    """The reader is asked with the arguments, right before the body and right after it."""
    judge, seen = Judge(), []

    def looks(arguments: Any, _result: Any, evidence: Evidence) -> bool:
        seen.append(evidence)
        return bool(evidence.after == [*evidence.before, arguments["name"]])

    tool = write(world, verified_by(looks, judge), evidence=lambda _arguments: world.effects)
    with guard.run("w"):
        tool("a")
        tool("b")
    assert seen == [Evidence([], ["a"]), Evidence(["a"], ["a", "b"])]
    assert judge.asked[1][2] == Evidence(["a"], ["a", "b"])


def test_options_of_verification_reach_tools_that_cannot_be_decorated(
    guard: Guard, world: World
) -> None:
    """`Guard.protect` takes checks, or the options of `verified_by` with them."""
    judge = Judge()
    judge.says = Verdict(passed=True, confidence=0.6)
    given = {"checks": judge, "minimum_confidence": 0.8}
    tool = guard.protect(world.happen, effect="write", per="call", verified_by=given)
    with guard.run("w"), pytest.raises(VerificationFailed, match=r"0\.6 below 0\.8"):
        tool("a")
    with pytest.raises(ConfigurationError, match="verified_by has no option 'confidence'"):
        guard.protect(len, effect="read", verified_by={"checks": judge, "confidence": 1})


def test_evidence_is_kept_without_what_is_sensitive(guard: Guard) -> None:
    """It stands beside the chain, where results do, and shows no secret."""

    @idempotent(key="{name}")
    @tool_contract(
        effect="write", sensitive=["card"], evidence=lambda given: {"card": given["card"], "n": 1}
    )
    def pay(name: str, card: str) -> None:
        """Pay."""

    with guard.run("w", run_id="r"):
        pay("a", "4111-1111")
    [end] = [event for event in guard.runs.events("r") if event.kind == "step.finished"]
    hidden = {"card": "[hidden]", "n": 1}
    assert end.content is not None
    assert end.content["evidence"] == {"before": hidden, "after": hidden}


def test_nothing_begins_that_cannot_be_compared(guard: Guard, world: World) -> None:
    """A reader that fails before the body stops the call, which may be tried again."""
    broken = [True]

    def reader(_arguments: Any) -> list[str]:
        if broken:
            raise ConnectionError("no ledger")
        return world.effects

    tool = write(world, evidence=reader)
    with guard.run("w"):
        with pytest.raises(ConnectionError) as failed:
            tool("a")
        assert (one(guard).state, world.effects) == ("failed_retryable", [])
        broken.clear()
        assert tool("a") == "done a"
    assert "it did not begin" in failed.value.__notes__[0]


def test_a_reader_that_fails_afterwards_stops_no_write(guard: Guard, world: World) -> None:
    """What is done is done; verifiers see that nothing was seen."""
    looks: list[int] = []

    def reader(_arguments: Any) -> str:
        looks.append(1)
        if len(looks) > 1:
            raise ConnectionError("no ledger")
        return "before"

    seen: list[Any] = []
    tool = write(world, verified_by(lambda _a, _r, e: seen.append(e)), evidence=reader)
    with guard.run("w"):
        assert tool("a") == "done a"
    assert (seen, one(guard).state) == ([Evidence("before", None)], "succeeded")


def test_a_tool_in_the_stores_database_is_looked_at_inside_its_transaction(guard: Guard) -> None:
    """The reader sees what the body wrote before it is committed, and a no takes it back."""

    def rows(_arguments: Any) -> int:
        found: Any = current_run().call.connection.execute("SELECT count(*) FROM ours").fetchone()
        return int(found[0])

    @verified_by(lambda _a, _r, seen: (seen.before, seen.after) == (0, 2))
    @idempotent(key="{name}", same_database=True)
    @tool_contract(effect="write", evidence=rows)
    def add(name: str) -> None:
        current_run().call.connection.execute("INSERT INTO ours VALUES (?)", (name,))

    def make(tx: Any) -> None:
        tx.run("CREATE TABLE ours (name TEXT)")

    guard.store.transact(make)
    with guard.run("w"), pytest.raises(VerificationFailed):
        add("a")
    assert one(guard).state == "failed_retryable"
    count = guard.store.read(lambda tx: tx.row("SELECT count(*) FROM ours"))
    assert count == (0,)


def test_a_verifier_of_evidence_needs_a_reader(guard: Guard, world: World) -> None:
    """Who takes evidence that nobody reads is refused at bind, with the mend."""
    [problem] = guard.check([write(world, verified_by(lambda _a, _r, evidence: bool(evidence)))])
    assert "add evidence=reader to tool_contract" in problem


def test_a_sync_tool_has_a_sync_reader() -> None:
    """A reader of the other colour could not be asked."""

    async def reader(_arguments: Any) -> None:
        """Look."""

    with pytest.raises(ConfigurationError, match="a sync one for a sync tool"):
        tool_contract(effect="write", evidence=reader)(lambda: None)


async def test_an_async_reader_is_awaited(guard: Guard) -> None:
    """Tools on an event loop may look at the world without blocking it."""
    count = [0]

    async def reader(_arguments: Any) -> int:
        await asyncio.sleep(0)
        return count[0]

    seen: list[Any] = []

    @verified_by(lambda _a, _r, e: seen.append(e))
    @idempotent(per="call")
    @tool_contract(effect="write", evidence=reader)
    async def add() -> None:
        count[0] += 1

    async with guard.run("w"):
        await add()
    assert seen == [Evidence(0, 1)]


def test_what_a_hook_confirms_is_looked_at_too(guard: Guard, world: World) -> None:
    """An outcome found later is verified by what can be seen then; before is not known."""
    seen: list[Any] = []

    @verified_by(lambda _a, _r, e: seen.append(e))
    @idempotent(key="{name}", reconcile=lambda _call: Happened("done a"))
    @tool_contract(effect="write", evidence=lambda _arguments: world.effects)
    def pay(name: str) -> str:
        world.happen(name)
        raise ConnectionResetError

    with guard.run("w"):
        assert pay("a") == "done a"
    assert seen[-1].after == ["a"]


# The record.


def test_verdicts_are_labels_on_record(guard: Guard, world: World) -> None:
    """Who said what of which outcome, and how sure, can be counted later."""
    judge = Judge("judge-1", prompt_version="7", owner="risk")
    judge.says = Verdict(False, 0.25, "the amount is wrong", {"amount": ["5", "6"]})
    with guard.run("w", run_id="r"), pytest.raises(VerificationFailed):
        write(world, verified_by(judge))("a")
    [event] = [event for event in guard.runs.events("r") if event.kind == "verified"]
    assert {k: v for k, v in event.data.items() if k != "content"} == {
        "verifier": "judge", "kind": "model", "model": "judge-1", "prompt_version": "7",
        "owner": "risk", "passed": False, "confidence": "0.25", "reason": "the amount is wrong",
        "final": False, "unavailable": False,
    }  # fmt: skip
    assert event.content == {"diff": {"amount": ["5", "6"]}}
    assert guard.runs.verify("r") is None


def show(guard: Guard, *options: str) -> str:
    """What the command shows of the run."""
    ended = CliRunner().invoke(
        main, ["runs", "show", "r", *options, "--store", str(guard.store.url)]
    )
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_a_step_shows_who_verified_it(guard: Guard, world: World) -> None:
    """Model, prompt and owner of a verifier, its words, what differs, and what was seen."""
    judge = Judge("judge-1", prompt_version="7", owner="risk")
    judge.says = Verdict(False, 0.25, "the amount is wrong", {"amount": ["5", "6"]})
    tool = write(world, verified_by(judge), evidence=lambda _arguments: {"paid": world.effects})
    with guard.run("w", run_id="r"), pytest.raises(VerificationFailed):
        tool("a")
    shown = show(guard, "--step", "1")
    assert "judge (model judge-1, prompt 7, of risk) NOT confirmed: the amount is wrong" in shown
    assert 'amount=["5", "6"]' in shown.replace('"5","6"', '"5", "6"')
    assert "saw before" in shown
    found = json.loads(show(guard, "-o", "json"))["timeline"][0]
    assert found["evidence"]["after"] == {"paid": ["a"]}
    assert found["verdicts"][0]["diff"] == {"amount": ["5", "6"]}


# Runs as a whole.


def count_of(expected: int) -> Callable[..., Verdict]:
    """A verifier of runs that expects so many effects."""

    def as_many(run: Any, effects: Any) -> Verdict:
        return Verdict(len(effects) == expected, reason=f"{run.workflow} wrote {len(effects)}")

    return as_many


def test_a_run_that_is_not_confirmed_has_failed(guard: Guard, world: World) -> None:
    """Its verifiers see what operators see, at the end, and their no is the run's end."""
    tool = write(world)
    with (
        pytest.raises(VerificationFailed, match="run r: as_many says no: w wrote 1") as failed,
        guard.run("w", run_id="r", verified_by=count_of(2)),
    ):
        tool("a")
    assert failed.value.run_id == "r"
    info = guard.runs.show("r")
    assert info.status == "failed"
    assert "w wrote 1" in str(info.error)
    assert "as_many NOT confirmed: w wrote 1" in show(guard)
    [event] = [event for event in guard.runs.events("r") if event.kind == "verified"]
    assert event.step is None
    assert guard.runs.verify("r") is None


def test_a_run_that_is_confirmed_has_succeeded(guard: Guard, world: World) -> None:
    """A yes is on record, too, and a run can ask for more as it goes on."""
    tool = write(world)
    with guard.run("w", run_id="r", verified_by=[count_of(1)]) as run:
        tool("a")
        run.verify_with(lambda _run, _effects: True, by="another")
    assert guard.runs.show("r").status == "succeeded"
    assert [verdict["verifier"] for verdict in said(guard)] == ["as_many", "another"]
    assert json.loads(show(guard, "-o", "json"))["verdicts"][1]["verifier"] == "another"


def test_a_run_that_failed_or_waits_is_not_verified(guard: Guard, world: World) -> None:
    """There is nothing to confirm yet, or any more."""
    asked: list[Any] = []
    check = lambda run, _effects: asked.append(run.id)  # noqa: E731 - shared by three runs
    with pytest.raises(ZeroDivisionError), guard.run("w", verified_by=check):
        raise ZeroDivisionError
    waits = write(world, requires_approval())
    with pytest.raises(GuardError, match="waits"), guard.run("w", verified_by=check):
        waits("a")
    with guard.run("w", run_id="r", verified_by=check), pytest.raises(GuardError, match="waits"):
        waits("b")
    assert (asked, guard.runs.show("r").status) == ([], "waiting")


def test_a_run_is_not_confirmed_by_a_broken_verifier(guard: Guard) -> None:
    """An outage at the end of a run is no yes either."""
    with (
        pytest.raises(VerificationFailed, match="unavailable") as failed,
        guard.run("w", run_id="r", verified_by=breaks),
    ):
        pass
    assert (failed.value.unavailable, guard.runs.show("r").status) == (True, "failed")


def test_a_run_is_not_confirmed_by_the_model_that_acted_in_it(guard: Guard) -> None:
    """What is known before refuses the run; what it has called refuses the verdict."""
    judge = Judge("gpt-x")
    with pytest.raises(ConfigurationError, match="asks gpt-x"):
        guard.run("w", principal=Principal(model="openai:gpt-x"), verified_by=judge)
    with (
        pytest.raises(VerificationFailed, match="which proposes the calls"),
        guard.run("w", run_id="r", verified_by=judge) as run,
    ):
        run.model_finished(run.model_started(model="gpt-x", messages=[]))
    assert (judge.asked, guard.runs.show("r").status) == ([], "failed")


async def test_an_async_run_awaits_its_verifiers(guard: Guard) -> None:
    """Verifiers of runs come in both colours; an async one cannot be asked from sync code."""

    async def check(_run: Any, _effects: Any) -> bool:
        await asyncio.sleep(0)
        return True

    async with guard.run("w", run_id="r", verified_by=check):
        pass
    assert guard.runs.show("r").status == "succeeded"
    with (
        pytest.raises(VerificationFailed, match="async with"),
        guard.run("w", run_id="s", verified_by=check),
    ):
        pass
    assert guard.runs.show("s").status == "failed"


def test_a_verified_run_that_was_killed_before_its_end_is_asked_again(tmp_path: Path) -> None:
    """No verdict counts without the end that it belongs to."""
    asked: list[int] = []
    check = lambda run, _effects: asked.append(run.part)  # noqa: E731 - shared by two runs
    first = Guard(f"sqlite:///{tmp_path}/a.db")
    killed = first.run("w", run_id="r", verified_by=check)
    contextvars.copy_context().run(killed.__enter__)  # nothing of it stays behind here
    with first.run("w", run_id="r", verified_by=check):
        pass
    assert (asked, first.runs.show("r").status) == ([2], "succeeded")
    first.close()
