"""What is graded as a tool: decorated functions, those of a policy file, and frameworks' tool objects."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from agentguard import Guard, budget, idempotent, tool_contract, workflow
from agentguard.config import loads
from agentguard.readiness import grade, project_of, subject_of
from tests.readiness.shop import GOOD, good, refund, settings, tool


def of_langchain(function: Any) -> Any:
    """Make a tool of LangChain."""
    from langchain_core.tools import tool as made

    return made(function)


def of_llamaindex(function: Any) -> Any:
    """Make a tool of LlamaIndex."""
    from llama_index.core.tools import FunctionTool

    return FunctionTool.from_defaults(fn=function)


def of_semantic_kernel(function: Any) -> Any:
    """Make a function of a kernel."""
    from semantic_kernel.functions import KernelFunctionFromMethod, kernel_function

    return KernelFunctionFromMethod(method=kernel_function(function), plugin_name="shop")


@pytest.mark.slow
@pytest.mark.parametrize("make", [of_langchain, of_llamaindex, of_semantic_kernel])
def test_a_frameworks_tool_is_graded_as_its_function(make: Callable[[Any], Any]) -> None:
    """The tool objects of three frameworks are looked into for the function that is guarded."""
    found = subject_of(make(tool()), settings())
    assert (found.name, found.effect, found.error) == ("refund", "write", None)
    assert found.file == subject_of(tool(), settings()).file


async def anything(**arguments: Any) -> str:
    """Take what only a schema describes, as the functions of MCP's tools do."""
    return str(arguments)


SCHEMA = {
    "type": "object",
    "properties": {"ticket_id": {"type": "string"}, "amount_usd": {"type": "number"}},
    "required": ["ticket_id"],
}


def described_for_langchain() -> Any:
    """Make a tool as MCP's adapter for LangChain does."""
    from langchain_core.tools import StructuredTool

    return StructuredTool(name="refund", description="-", args_schema=SCHEMA, coroutine=anything)


def with_a_body_of_its_own() -> Any:
    """Make a tool of LangChain whose body is a method."""
    from langchain_core.tools import BaseTool

    class Refund(BaseTool):
        name: str = "refund"
        description: str = "-"

        def _run(self, ticket_id: str, amount_usd: Decimal) -> str:
            return f"{ticket_id} {amount_usd}"

    return Refund()


def described_for_llamaindex() -> Any:
    """Make a tool as MCP's adapter for LlamaIndex does."""
    from llama_index.core.tools import FunctionTool, ToolMetadata
    from pydantic import BaseModel

    class Given(BaseModel):
        ticket_id: str
        amount_usd: Decimal

    return FunctionTool(
        async_fn=anything, metadata=ToolMetadata("-", name="refund", fn_schema=Given)
    )


def described_for_semantic_kernel() -> Any:
    """Make a function of a kernel as its MCP plugin does."""
    from semantic_kernel.functions import (
        KernelFunctionFromMethod,
        KernelParameterMetadata,
        kernel_function,
    )

    given = [
        KernelParameterMetadata(name=n, type=s["type"], is_required=True, schema_data=s)
        for n, s in {"ticket_id": {"type": "string"}, "amount_usd": {"type": "number"}}.items()
    ]
    body = kernel_function(name="refund")(anything)
    return KernelFunctionFromMethod(method=body, plugin_name="shop", parameters=given)


POLICY = """\
agent_run:
  tools:
    refund:
      effect: write
      scopes: ["refunds:write"]
      idempotency: {key: "refund:{ticket_id}"}
"""


@pytest.mark.parametrize("make", [lambda function: function, of_langchain])
def test_a_policy_in_the_file_declares(make: Callable[[Any], Any]) -> None:
    """A function that nobody has decorated is what the file says of it."""
    found = subject_of(make(refund), loads(POLICY))
    assert (found.effect, found.error) == ("write", None)
    assert found.key is not None
    assert found.contract is not None
    assert found.contract.scopes == ("refunds:write",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (described_for_langchain, "refund"),
        (with_a_body_of_its_own, "refund"),
        (described_for_llamaindex, "refund"),
        (described_for_semantic_kernel, "shop-refund"),
    ],
)
def test_a_tool_that_comes_with_a_schema_is_graded_by_it(
    make: Callable[[], Any], name: str
) -> None:
    """Tools from elsewhere that run under a policy of the file can be used, and have typed arguments."""
    text = GOOD + POLICY.partition("agent_run:\n")[2].replace("    refund:", f"    {name}:")
    project = project_of([make()], loads(text))
    (found,) = project.subjects
    assert (found.name, found.effect, found.error) == (name, "write", None)
    (said,) = [f for f in grade(project).findings if f.id == "safety.input"]
    assert (said.status, said.evidence) == ("pass", "2 arguments, each with a type")


def test_a_policy_that_does_not_fit_its_function_is_told() -> None:
    """A key over an argument that there is not makes the tool one that cannot be used."""
    found = subject_of(refund, loads(POLICY.replace("{ticket_id}", "{order_id}")))
    assert found.error is not None
    assert "'order_id', which is none of its arguments" in found.error


def test_what_cannot_be_used_is_unknown_where_it_matters() -> None:
    """Of a tool that cannot be used its schema and its rules are unknown; what is declared counts."""

    @tool_contract(effect="write", facts={"refund_usd": "amount_usd"})
    def keyless(ticket_id: str, amount_usd: Decimal) -> str:
        return f"{ticket_id} {amount_usd}"

    report = grade(good(keyless))
    standing = report.standings("minimum")
    assert standing["safety.declared"] == standing["safety.key"] == "fail"
    assert standing["safety.input"] == standing["governance.approvals"] == "unknown"


def test_a_guard_among_the_tools_brings_what_it_knows() -> None:
    """A guard tells its settings, who acts under it, and whether it knows prices."""
    guard = Guard("memory://", config=settings(), prices={"planner": (1, 2)})
    project = project_of([guard, tool()], None)
    assert project.settings is guard.settings
    assert project.principals == (guard.principal,)
    assert project.prices
    assert [subject.name for subject in project.subjects] == ["refund"]


def test_the_budget_of_a_workflow_limits_its_runs() -> None:
    """Limits that stand on a function with `@workflow` count like those of the file."""

    @workflow(name="refund")
    @budget(max_steps=9, max_model_calls=3, max_spend_usd="0.40")
    def work(ticket_id: str) -> str:
        return ticket_id

    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("  max_")) + "\n"
    assert "cost.steps" in grade(good(text=text)).below("minimum")
    report = grade(good(tool(), work, text=text))
    assert report.below("minimum") == []
    (steps,) = [f for f in report.findings if f.id == "cost.steps"]
    assert steps.evidence == "limited by @budget on work"


PRICED = """\
agent_run:
  routing: {planner_model: heavy}
  models: {heavy: "openai:gpt-9"}
  costs:
    models: {"gpt-8": {input_usd: 1, output_usd: 2}}
"""


def test_a_model_behind_a_role_needs_a_price() -> None:
    """Prices of other models are none of the one that is used."""
    report = grade(good(text=PRICED))
    (found,) = [f for f in report.findings if f.id == "cost.prices"]
    assert (found.status, found.evidence) == ("fail", "nobody says what openai:gpt-9 costs")
    report = grade(good(text=PRICED.replace('"gpt-8"', '"gpt-9"')))
    assert report.standings("minimum")["cost.prices"] == "pass"


def test_prices_of_a_guard_need_to_be_those_of_its_models() -> None:
    """A guard that knows what other models cost does not know what its own do."""
    text = GOOD.replace(
        "planner_model: planner", 'planner_model: heavy\n  models: {heavy: "openai:gpt-9"}'
    )
    text = text.partition("  costs:")[0] + "  slos:" + text.partition("  slos:")[2]

    def standing(prices: dict[str, tuple[int, int]]) -> str:
        guard = Guard("memory://", config=loads(text), prices=prices)
        return grade(project_of([guard, tool()], None)).standings("minimum")["cost.prices"]

    assert standing({"gpt-8": (1, 2)}) == "fail"
    assert standing({"gpt-9": (1, 2)}) == "pass"


@pytest.mark.parametrize(("cost", "moves"), [("0.01", False), ("number", True), (len, True)])
def test_what_a_call_costs_is_no_money_that_it_moves(cost: Any, *, moves: bool) -> None:
    """A fixed amount is a price; one that the arguments say is money that the tool moves."""

    @tool_contract(effect="write")
    @idempotent(key="n:{number}")
    @budget(max_calls=3, cost=cost)
    def note(number: int) -> int:
        return number

    assert subject_of(note, settings()).moves_money is moves


def test_two_tools_of_one_name_are_told() -> None:
    """Two functions under one name share keys and records."""

    @tool_contract(effect="read", name="refund")
    def other(order: str) -> str:
        return order

    report = grade(good(tool(), other))
    found = [f for f in report.findings if f.id == "safety.declared" and f.status == "fail"]
    assert [f.tool for f in found] == ["refund", "refund"]
    assert "another tool has the same name" in found[0].evidence


@pytest.mark.slow
def test_one_tool_twice_is_one() -> None:
    """A function beside a framework's tool object around it shares its name by right."""
    once = tool()
    assert grade(good(once, of_langchain(once))).below("minimum") == []
