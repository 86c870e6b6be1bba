"""Models by role: aliases, heavier models after failed verdicts, and who may verify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from agentguard import (
    Guard,
    Principal,
    StoreUnavailable,
    idempotent,
    tool_contract,
    verified_by,
)
from agentguard.config import Settings, json_schema, loads
from agentguard.errors import ConfigurationError
from agentguard.model import Verdict, VerifierIdentity
from agentguard.routing import Escalation, Route, Target
from tests.test_config import ARTICLE, plain, refusal, under

MODELS = """models:
  high_reasoning: "openai:gpt-5.1"
  fast_cheap: {model: "openai:gpt-5.1-nano", service: kernel-cheap}
  judge: "anthropic:claude-5"
"""
ROLES = """routing:
  planner_model: high_reasoning
  executor_model: fast_cheap
  verifier_model: judge
"""
HEAVIER = ROLES + "  escalation: {after: 1, to: high_reasoning, roles: [executor]}\n"
PRICES = {"gpt-5.1": ("1000", "4000"), "openai:gpt-5.1-nano": ("1", "4")}
LIGHT, HEAVY = "openai:gpt-5.1-nano", "openai:gpt-5.1"


def settings(*parts: str) -> Settings:
    """A configuration of these keys."""
    return loads(under("".join(parts)), "a.yaml")


def guarded(*parts: str, **options: Any) -> Guard:
    """A guard with a configuration of these keys."""
    return Guard("memory://", config=settings(*parts or (MODELS, HEAVIER)), **options)


@pytest.fixture(name="guard")
def guard_that_escalates() -> Iterator[Guard]:
    """A guard whose executor gets a heavier model after one failed verdict."""
    guard = guarded(prices=PRICES)
    yield guard
    guard.close()


def refute(*, unavailable: bool = False) -> None:
    """Let a verifier say no to a call of the run that is entered here."""

    def no(_arguments: Any, _result: Any) -> Verdict:
        if unavailable:
            raise OSError
        return Verdict(passed=False)

    @verified_by(no)
    @tool_contract(effect="read", name="look")
    def look() -> int:
        return 1

    with pytest.raises(Exception, match="look"):
        look()


def moves(guard: Guard, run_id: str = "r") -> list[dict[str, Any]]:
    """The changes of models that the record tells of."""
    return [dict(e.data) for e in guard.runs.events(run_id) if e.kind == "model.routed"]


# The file


def test_the_articles_aliases_mean_themselves() -> None:
    """Without a word about models a role's alias is the model, the service and itself."""
    guard = Guard("memory://", config=loads(ARTICLE))
    with guard.run() as run:
        assert run.model_for("planner") == "high_reasoning"
        assert run.role("executor") == Route("executor", "fast_cheap", "fast_cheap", "fast_cheap")
    guard.close()


def test_the_articles_verifier_is_told_that_it_is_the_executor() -> None:
    """One alias for both roles is read, and refused where the verifier's model is asked for."""
    guard = Guard("memory://", config=loads(ARTICLE))
    with (
        guard.run() as run,
        pytest.raises(ConfigurationError, match=r"^agent_run.yaml:9: routing.verifier_model is"),
    ):
        run.model_for("verifier")
    guard.close()


def test_aliases_lead_to_models_and_services(guard: Guard) -> None:
    """Each role gets the model behind its alias; the service is the alias unless it is said."""
    with guard.run() as run:
        assert [run.model_for(role) for role in ("planner", "executor", "verifier")] == [
            HEAVY, LIGHT, "anthropic:claude-5",
        ]  # fmt: skip
        assert [run.role(role).service for role in ("planner", "executor")] == [
            "high_reasoning", "kernel-cheap",
        ]  # fmt: skip


def test_the_keys_are_read() -> None:
    """Models and escalation are values of the settings."""
    found = settings(MODELS, HEAVIER)
    assert found.models["fast_cheap"] == Target(LIGHT, "kernel-cheap")
    assert found.models["judge"] == Target("anthropic:claude-5")
    assert found.escalation == Escalation("high_reasoning", 1, ("executor",))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            MODELS + ROLES + "  escalation: {to: high_resoning}",
            (
                "10: routing.escalation.to is high_resoning, which neither models nor a role names;"
                " did you mean 'high_reasoning'?"
            ),
        ),
        (
            "routing:\n  executor_model: a\n  escalation:\n    to: something",
            (
                "5: routing.escalation.to is something, which neither models nor a role names;"
                " name it under models"
            ),
        ),
        (
            MODELS + ROLES + "  escalation: {to: judge}",
            (
                "10: routing.escalation.to is the model that verifies: it would confirm what it"
                " proposes; name another"
            ),
        ),
        (
            MODELS + ROLES + "  escalation: {to: fast_cheap}",
            "10: routing.escalation.to is what the executor has already; name a heavier model",
        ),
        (
            MODELS + "routing: {escalation: {to: judge}}",
            "6: routing.escalation is for the executor, and no executor_model is named; add it",
        ),
        (
            MODELS + "routing: {executor_model: fast_chaep}",
            (
                "6: routing.executor_model is fast_chaep, which models does not name; did you mean"
                " 'fast_cheap'?"
            ),
        ),
        (
            MODELS + ROLES + "  escalation: {to: high_reasoning, roles: [verifier]}",
            "10: routing.escalation.roles.0 must be 'planner' or 'executor'",
        ),
        (
            MODELS + ROLES + "  escalation: {to: high_reasoning, roles: []}",
            "10: routing.escalation.roles must name planner, executor or both",
        ),
        (
            "models: {a: 5}",
            "2: models.a must be a model's name, such as openai:gpt-5.1, or hold keys beneath it",
        ),
        ("models: {a: {modl: x}}", "2: models.a.model is missing; add it"),
    ],
)
def test_what_leads_nowhere_is_refused_with_its_line(lines: str, sentence: str) -> None:
    """Unknown aliases, and heavier models that are not heavier, are refused with the mend."""
    assert refusal(under(lines)).split("\n")[0] == sentence


def test_editors_are_told_the_same() -> None:
    """The JSON Schema takes what is read, and marks what is refused."""
    schema = json_schema()
    jsonschema.validate(plain(under(MODELS + HEAVIER)), schema)
    for line in ("models: {a: 5}", "models: {a: {modl: x}}", "routing: {escalation: {after: 1}}"):
        assert refusal(under(line))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(plain(under(line)), schema)


def test_models_and_escalation_are_part_of_the_policys_version() -> None:
    """Another model behind an alias, or another escalation, is another policy."""
    versions = {
        settings(ROLES).version, settings(MODELS, ROLES).version,
        settings(MODELS, HEAVIER).version, settings(MODELS.replace("nano", "mini"), ROLES).version,
    }  # fmt: skip
    assert len(versions) == 4


# Runs


@pytest.mark.parametrize("role", ["executer", ""])
def test_an_unknown_role_is_refused(guard: Guard, role: str) -> None:
    """There are three roles."""
    with guard.run() as run, pytest.raises(ConfigurationError, match="planner, executor, verifier"):
        run.model_for(role)


def test_a_role_without_a_model_is_told() -> None:
    """Nothing is guessed where the configuration names no model."""
    guard = guarded("max_steps: 1")
    with guard.run() as run, pytest.raises(ConfigurationError, match=r"executor_model: \.\.\."):
        run.model_for("executor")
    guard.close()


def test_after_a_failed_verdict_the_heavier_model_takes_over(guard: Guard) -> None:
    """The next call of the role gets it, others do not, and the record says so once."""
    with guard.run(run_id="r") as run:
        assert run.model_for("executor") == LIGHT
        refute()
        assert [run.model_for("executor") for _ in range(3)] == [HEAVY] * 3
        assert run.role("executor").escalated
        assert run.model_for("verifier") == "anthropic:claude-5"
    assert moves(guard) == [
        {"role": "executor", "from": LIGHT, "to": HEAVY, "why": "1 failed verdict"}
    ]


async def test_it_is_the_same_on_an_event_loop(guard: Guard) -> None:
    """The async forms ask the same record."""
    async with guard.run(run_id="r") as run:
        assert await run.amodel_for("executor") == LIGHT
        refute()
        assert (await run.arole("executor")).model == HEAVY
        assert await run.amodel_for("executor") == HEAVY
    assert len(moves(guard)) == 1


def test_a_verifier_without_an_answer_is_no_failed_verdict(guard: Guard) -> None:
    """An outage says nothing about the model."""
    with guard.run(run_id="r") as run:
        refute(unavailable=True)
        assert run.model_for("executor") == LIGHT
    assert moves(guard) == []


def test_it_takes_as_many_failed_verdicts_as_the_file_says() -> None:
    """With after: 2 one is not enough."""
    guard = guarded(MODELS, ROLES, "  escalation: {after: 2, to: high_reasoning}\n")
    with guard.run(run_id="r") as run:
        refute()
        assert run.model_for("executor") == LIGHT
        refute()
        assert run.model_for("executor") == HEAVY
    assert [move["why"] for move in moves(guard)] == ["2 failed verdicts"]
    guard.close()


def test_a_resumed_run_keeps_its_heavier_model(guard: Guard) -> None:
    """It is folded from the record, and not told again."""
    with guard.run(run_id="r") as run:
        refute()
        run.model_for("executor")
    with guard.run(run_id="r") as run:
        assert run.model_for("executor") == HEAVY
    assert len(moves(guard)) == 1


def test_a_verdict_of_an_earlier_part_counts(guard: Guard) -> None:
    """What was refuted before a crash escalates after it."""
    with guard.run(run_id="r"):
        refute()
    with guard.run(run_id="r") as run:
        assert run.model_for("executor") == HEAVY
    assert len(moves(guard)) == 1


def test_another_process_in_the_run_sees_it(guard: Guard) -> None:
    """The record is read anew until the heavier model has taken over."""
    with guard.run(run_id="r") as run:
        assert run.model_for("executor") == LIGHT
        with guard.run(run_id="r", join=True) as other:
            refute()
            assert other.model_for("executor") == HEAVY
        assert run.model_for("executor") == HEAVY
    assert len(moves(guard)) == 1


def test_other_runs_keep_their_light_model(guard: Guard) -> None:
    """A failed verdict is one of its run."""
    with guard.run(run_id="r") as run:
        refute()
        run.model_for("executor")
    with guard.run() as run:
        assert run.model_for("executor") == LIGHT


# Budget


def ask(run: Any, model: str, asked: int, answered: int) -> None:
    """Let the run make a model call."""
    call = run.model_started(model=model, messages=[])
    run.model_finished(call, input_tokens=asked, output_tokens=answered)


@pytest.mark.parametrize(("limit", "model"), [("1.40", LIGHT), ("1.41", HEAVY)])
def test_the_heavier_model_must_fit_into_the_budget(guard: Guard, limit: str, model: str) -> None:
    """One call of it like the last one of the run, at its price, has to fit."""
    with guard.run(run_id="r", max_spend_usd=limit) as run:
        ask(run, LIGHT, 1000, 100)  # heavier: 1000 and 400 thousandths
        refute()
        assert run.model_for("executor") == model
    assert len(moves(guard)) == (model == HEAVY)


def test_without_a_call_before_a_typical_one_is_counted(guard: Guard) -> None:
    """2000 tokens asked and 500 answered cost 4 dollars here."""
    with guard.run(max_spend_usd="3.99") as run:
        refute()
        assert run.model_for("executor") == LIGHT
    with guard.run(max_spend_usd="4") as run:
        refute()
        assert run.model_for("executor") == HEAVY


def test_a_model_without_a_price_counts_as_affordable() -> None:
    """What is not known is left to the budget, which judges the call itself."""
    guard = guarded()
    with guard.run(max_spend_usd="0.01") as run:
        refute()
        assert run.model_for("executor") == HEAVY
    guard.close()


def test_without_model_calls_left_nothing_changes(guard: Guard) -> None:
    """A call that cannot be made needs no heavier model."""
    with guard.run(run_id="r", max_model_calls=1) as run:
        ask(run, LIGHT, 1, 1)
        refute()
        assert run.model_for("executor") == LIGHT
    assert moves(guard) == []


def test_the_heavier_model_stays_when_money_runs_out(guard: Guard) -> None:
    """Nothing goes back to the light model within a run; the budget refuses the call."""
    with guard.run(max_spend_usd="5") as run:
        refute()
        assert run.model_for("executor") == HEAVY
        ask(run, "gpt-5.1", 4000, 240)
        assert run.model_for("executor") == HEAVY


# Who verifies


def write(*decorators: Any) -> Any:
    """A guarded write."""

    @tool_contract(effect="write")
    @idempotent(key="{name}")
    def pay(name: str) -> str:
        return name

    for decorator in decorators:
        pay = decorator(pay)
    return pay


class Judge:
    """A verifier that asks a model."""

    def __init__(self, model: str) -> None:
        self.identity = VerifierIdentity("model", "judge", model=model)

    def __call__(self, _arguments: Any, _result: Any) -> bool:
        """Say yes."""
        return True


@pytest.mark.parametrize("model", ["gpt-5.1-nano", "gpt-5.1"])
def test_a_verifier_behind_a_proposers_alias_is_refused_at_bind(guard: Guard, model: str) -> None:
    """The models behind aliases count, and so does the one that takes over only later."""
    [problem] = guard.check([write(verified_by(Judge(model)))])
    assert f"the verifier judge asks {model}" in problem


def test_the_model_behind_the_verifiers_alias_may_verify(guard: Guard) -> None:
    """It proposes nothing, before and after an escalation."""
    assert guard.check([write(verified_by(Judge("claude-5")))]) == []


def test_the_model_that_takes_over_only_later_may_not_verify() -> None:
    """A verifier is refused before it could confirm what it proposes itself, of tools and of runs."""
    guard = guarded(
        MODELS, "routing: {executor_model: fast_cheap, escalation: {to: high_reasoning}}"
    )
    [problem] = guard.check([write(verified_by(Judge("gpt-5.1")))])
    assert "the verifier judge asks gpt-5.1" in problem
    with pytest.raises(ConfigurationError, match="which proposes the calls"):
        guard.run("w", principal=Principal(), verified_by=Judge("gpt-5.1"))
    guard.close()


async def test_on_a_server_it_is_the_same(postgres_url: str) -> None:
    """On PostgreSQL the record is read in the same words."""
    guard = Guard(postgres_url, config=settings(MODELS, HEAVIER))
    async with guard.run(run_id="r") as run:
        assert await run.amodel_for("executor") == LIGHT
        refute()
        assert await run.amodel_for("executor") == HEAVY
    assert len(moves(guard)) == 1
    guard.close()


def test_a_damaged_record_stops_the_question(guard: Guard) -> None:
    """An event that cannot be what was written is told instead of counted."""
    with guard.run(run_id="r"):
        refute()
    with guard.run(run_id="r") as run:
        spoil = "UPDATE events SET data = ? WHERE kind = 'step.finished'"
        guard.store.transact(lambda tx: tx.run(spoil, ['{"error":"VerificationFailed"']))
        with pytest.raises(StoreUnavailable, match="the record of run r is damaged"):
            run.model_for("executor")
