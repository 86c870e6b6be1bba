"""LangChain's own standard tests of tools, run unharmed on guarded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForToolRun
from langchain_core.tools import BaseTool, StructuredTool, tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from pydantic import BaseModel, Field

from agentguard import Guard, budget, idempotent, requires_approval, tool_contract
from agentguard_langchain import guard_tools, reporting

POLICY: dict[str, Any] = {"effect": "write", "key": "pay:{to}", "max_calls": 3}


def decorated(function: Any) -> Any:
    """All decorators that a tool may have."""
    for decorate in (
        budget(max_calls=3), requires_approval(when="amount > 50"), idempotent(key="pay:{to}"),
        tool_contract(effect="write", sensitive=["to"]),
    ):  # fmt: skip
        function = decorate(function)
    return function


def pay(to: str, amount: int = 1) -> str:
    """Pay somebody."""
    return f"{to} {amount}"


async def apay(to: str, amount: int = 1) -> str:
    """Pay somebody."""
    return f"{to} {amount}"


class Payment(BaseModel):
    """What a payment needs."""

    to: str
    amount: int = Field(default=1, gt=0)


class PayTool(BaseTool):
    """A tool that has its body in a method."""

    name: str = "pay"
    description: str = "Pay somebody."
    args_schema: Any = Payment

    def _run(
        self, to: str, amount: int = 1, run_manager: CallbackManagerForToolRun | None = None
    ) -> str:
        return f"{to} {amount}"


class BothPayTool(PayTool):
    """The same with a body for event loops."""

    async def _arun(self, to: str, amount: int = 1) -> str:
        return f"{to} {amount}"


def of_content_and_artifact(_: Guard) -> BaseTool:
    """A decorated function that answers the model and its caller."""

    @tool(response_format="content_and_artifact")
    @tool_contract(effect="read")
    def look(to: str) -> tuple[list[str | dict[str, str]], dict[str, str]]:
        """Look somebody up."""
        return [{"type": "text", "text": to}], {"to": to}

    return look


def copied(bare: BaseTool, **policy: Any) -> Callable[[Guard], BaseTool]:
    """Make a tool of one that cannot be decorated."""
    return lambda guard: guard_tools([bare], guard, **POLICY, **policy)[0]


MAKERS: dict[str, Callable[[Guard], BaseTool]] = {
    "a decorated function": lambda _: tool(decorated(pay)),
    "decorated functions in both colours": lambda _: StructuredTool.from_function(
        decorated(pay), decorated(apay)
    ),
    "a decorated function with an artifact": of_content_and_artifact,
    "a copied function": copied(tool(pay), when="amount > 50"),
    "copied functions in both colours": copied(StructuredTool.from_function(pay, apay)),
    "a copied tool class": copied(PayTool()),
    "a copied tool class in both colours": copied(BothPayTool()),
}
ASYNC_ONLY: dict[str, Callable[[Guard], BaseTool]] = {
    "a decorated coroutine": lambda _: StructuredTool.from_function(coroutine=decorated(apay)),
    "a copied coroutine": copied(StructuredTool.from_function(coroutine=apay)),
}


class Guarded:
    """What LangChain's tests are told of a guarded tool."""

    made: BaseTool

    @pytest.fixture(autouse=True, params=[*MAKERS, *ASYNC_ONLY])
    def _in_a_run(self, request: pytest.FixtureRequest, guard: Guard) -> Iterator[None]:
        test = request.function.__name__
        calls = test.startswith("test_async_invoke")
        if test.startswith("test_invoke"):
            if request.param in ASYNC_ONLY:
                pytest.skip("LangChain does not invoke a coroutine without an event loop")
            calls = True
        self.made = {**MAKERS, **ASYNC_ONLY}[request.param](guard)
        with guard.run(run_id="r") as run, reporting(run):
            yield
        assert guard.runs.show("r").tool_calls == calls

    @property
    def tool_constructor(self) -> Any:
        """The guarded tool."""
        return self.made

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        """Arguments for it."""
        return {"to": "ann"}


class TestUnit(Guarded, ToolsUnitTests):
    """Names, schemas and construction."""


class TestIntegration(Guarded, ToolsIntegrationTests):
    """Calls with a model's tool call and without, in both colours."""
