"""Plugins one cannot decorate are guarded by the policy of their functions' names."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from semantic_kernel.functions import (
    KernelFunctionFromMethod,
    KernelFunctionFromPrompt,
    KernelParameterMetadata,
    kernel_function,
)

from agentguard import (
    ConfigurationError,
    ContractViolation,
    ForbiddenAction,
    Guard,
    tool_contract,
)
from agentguard_semantic_kernel import guard_kernel, questions
from tests.semantic_kernel.test_models import contents
from tests.semantic_kernel.world import KINDS, Talk, call, kernel_of, scripted
from tests.support import World

POLICY = """\
agent_run:
  workflow: "refunds"
  tools:
    shop-pay:
      effect: write
      sensitive: [iban]
      idempotency:
        key: "pay:{to}"
      approval:
        when: "amount > 50"
        allow_edit: true
    shop-erase:
      effect: forbidden
    shop-look:
      effect: read
"""


class Page(BaseModel):
    """An argument of a type of its own."""

    number: int


@pytest.fixture(name="guard")
def guard_with_a_policy(tmp_path: Path) -> Any:
    """A guard with a configuration."""
    path = tmp_path / "agent_run.yaml"
    path.write_text(POLICY)
    guard = Guard.from_config(path, store=f"sqlite:///{tmp_path}/agentguard.db")
    yield guard
    guard.close()


def paying(world: World, *, awaited: bool = False) -> Any:
    """Somebody's function."""

    def pay(to: str, amount: int, iban: str = "") -> str:
        """Pay."""
        return world.happen(f"{to} {amount}")

    async def apay(to: str, amount: int, iban: str = "") -> str:
        """Pay."""
        return pay(to, amount, iban)

    apay.__name__ = "pay"
    return apay if awaited else pay


def asking(amount: Any = 1, call_id: str = "1") -> Any:
    """The model pays ann."""
    return call(("pay", {"to": "ann", "amount": amount, "iban": "DE89 3704"}, call_id))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("awaited", [False, True])
async def test_an_undecorated_function_writes_once(
    guard: Guard, world: World, kind: str, *, awaited: bool
) -> None:
    """Its arguments are coerced as Semantic Kernel does it, and its result is replayed."""
    model = scripted(asking("3"), asking(3, "2"), asking(4, "3"), "done")
    talk = Talk(guard_kernel(kernel_of(model, paying(world, awaited=awaited)), guard), kind)
    await talk.ask("pay ann")
    assert (talk.results["1"], talk.results["2"]) == ("done ann 3", "done ann 3")
    assert json.loads(talk.results["3"])["error"] == "idempotency_conflict"
    assert world.effects == ["ann 3"]


@pytest.mark.parametrize("kind", KINDS)
async def test_it_waits_for_people_and_runs_as_they_edit_it(
    guard: Guard, world: World, kind: str
) -> None:
    """An approver's change reaches the function."""
    kernel = guard_kernel(kernel_of(scripted(asking(100), "paid"), paying(world)), guard)
    talk = Talk(kernel, kind)
    async with guard.run(run_id="r-1"):
        (question,) = questions(await talk.ask("pay ann"))
        assert question["tool"] == "shop-pay"
        assert question["arguments"] == {"to": "ann", "amount": 100, "iban": "[hidden]"}
        approval = question["approval_id"]
        guard.approvals.decide(approval, "edit", by="erin", edits={"amount": 60})
        guard.approvals.decide(approval, "approve", by="dana")
        await talk.ask()
    assert talk.results["1"].startswith("done ann 60\nA person changed")
    assert world.effects == ["ann 60"]
    assert "DE89" not in json.dumps(contents(guard))


async def test_an_invoked_function_is_guarded_too(guard: Guard, world: World) -> None:
    """`kernel.invoke` gives the recorded result the second time."""
    kernel = guard_kernel(kernel_of(None, paying(world)), guard)
    for _ in range(2):
        done = await kernel.invoke(plugin_name="shop", function_name="pay", to="ann", amount=3)
        assert str(done) == "done ann 3"
    assert world.effects == ["ann 3"]


async def test_bad_arguments_are_refused_without_their_values(guard: Guard, world: World) -> None:
    """What does not fit is told by name."""
    kernel = guard_kernel(kernel_of(scripted(asking("sesame"), "told"), paying(world)), guard)
    talk = Talk(kernel)
    await talk.ask("pay ann")
    told = json.loads(talk.results["1"])
    assert (told["error"], "amount" in told["message"]) == ("contract_violation", True)
    assert "sesame" not in talk.results["1"]
    with pytest.raises(ContractViolation):
        await kernel.invoke(plugin_name="shop", function_name="pay", to="ann", amount="sesame")
    assert world.effects == []


async def test_a_forbidden_function_never_runs(guard: Guard, world: World) -> None:
    """Its policy alone keeps it from running."""

    def erase() -> str:
        """Erase."""
        return world.happen("erased")

    kernel = guard_kernel(kernel_of(scripted(call(("erase", {}, "1")), "told"), erase), guard)
    talk = Talk(kernel)
    await talk.ask("erase")
    assert json.loads(talk.results["1"])["error"] == "forbidden_action"
    with pytest.raises(ForbiddenAction):
        await kernel.invoke(plugin_name="shop", function_name="erase")
    assert world.effects == []


async def test_types_that_json_does_not_have_are_let_in(guard: Guard) -> None:
    """Semantic Kernel calls them objects and makes them of what the model wrote."""
    seen: list[Any] = []

    def look(price: Decimal, ticket: UUID, page: Page, names: list[str], more: Any = None) -> str:
        """Look."""
        seen.extend([price, ticket, page, names])
        return "seen"

    ticket = "12345678-1234-5678-1234-567812345678"
    given = {"price": "1.5", "ticket": ticket, "page": {"number": 2}, "names": ["a"], "more": {}}
    talk = Talk(guard_kernel(kernel_of(scripted(call(("look", given, "1")), "ok"), look), guard))
    await talk.ask("look")
    assert talk.results == {"1": "seen"}
    assert seen == [Decimal("1.5"), UUID(ticket), Page(number=2), ["a"]]


async def test_functions_that_come_with_json_schema_are_held_to_it(
    guard: Guard, world: World
) -> None:
    """As those of MCP servers do: only the schema knows the arguments."""

    @kernel_function(name="look")
    async def client(**arguments: Any) -> str:
        return world.happen(json.dumps(arguments))

    schema = {"type": "string", "enum": ["open", "closed"]}
    parameter = KernelParameterMetadata(
        name="state", is_required=True, type_="string", schema_data=schema
    )  # type: ignore[call-arg] # an alias
    kernel = kernel_of(
        scripted(
            call(("look", {"state": "ajar"}, "1")), call(("look", {"state": "open"}, "2")), "ok"
        )
    )
    kernel.add_function("shop", KernelFunctionFromMethod(client, "shop", parameters=[parameter]))
    talk = Talk(guard_kernel(kernel, guard))
    await talk.ask("look")
    assert json.loads(talk.results["1"])["error"] == "contract_violation"
    assert world.effects == ['{"state": "open"}']


async def test_a_prompt_may_have_a_policy(guard: Guard) -> None:
    """It is a function like any other; streaming it is refused in one sentence."""
    kernel = guard_kernel(kernel_of(scripted("it is open")), guard, run_id="r-1")
    prompt = KernelFunctionFromPrompt("look", "shop", prompt="how is {{$what}}?")
    kernel.add_function("shop", prompt)
    assert (
        str(await kernel.invoke(plugin_name="shop", function_name="look", what="T-1"))
        == "it is open"
    )
    steps = [e.data.get("tool") for e in guard.runs.events("r-1") if e.kind == "step.finished"]
    assert steps == ["shop-look"]
    with pytest.raises(ConfigurationError, match="shop-look has a policy, so it does not stream"):
        async for _ in kernel.invoke_stream(plugin_name="shop", function_name="look", what="T-1"):
            pass


async def test_what_the_code_declares_comes_first(guard: Guard, world: World) -> None:
    """A decorated function guards itself, whatever the configuration says of its name."""

    @tool_contract(effect="read")
    def erase() -> str:
        """Erase nothing."""
        return world.happen("looked")

    kernel = guard_kernel(kernel_of(None, erase), guard)
    await kernel.invoke(plugin_name="shop", function_name="erase")
    assert world.effects == ["looked"]


async def test_a_function_without_a_policy_is_left_alone(guard: Guard, world: World) -> None:
    """Nothing of it is recorded."""

    def other() -> str:
        """Do something."""
        return world.happen("other")

    talk = Talk(
        guard_kernel(
            kernel_of(scripted(call(("other", {}, "1")), "ok"), other), guard, run_id="r-1"
        )
    )
    await talk.ask("go")
    assert (talk.results, guard.runs.show("r-1").tool_calls) == ({"1": "done other"}, 0)
