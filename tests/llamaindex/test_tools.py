"""Tools one cannot decorate, and tools over decorated functions, look to the model as before."""

# LlamaIndex reads annotations as they are, so they must not be texts here.

import copy
from pathlib import Path
from typing import Annotated, Any

import pytest
from llama_index.core.tools import (
    BaseTool,
    FunctionTool,
    QueryEngineTool,
    RetrieverTool,
    ToolMetadata,
    ToolOutput,
)
from pydantic import BaseModel, Field
from workflows import Context

from agentguard import ConfigurationError, Guard, current_run, idempotent, tool_contract
from agentguard_llamaindex import guard_tools, guard_workflow
from tests.llamaindex.world import KINDS, agent, answers, call, tool
from tests.support import World


def shown(made: Any) -> Any:
    """What the model sees of a tool."""
    return made.metadata.to_openai_tool()


def paying(world: World) -> tuple[Any, Any]:
    """A sync and an async function."""

    def pay(to: str, amount: Annotated[int, Field(gt=0)] = 5) -> str:
        """Pay somebody.

        Args:
            to: who gets it.
            amount: how much.
        """
        return world.happen(f"{to} {amount}")

    async def apay(to: str, amount: Annotated[int, Field(gt=0)] = 5) -> str:
        """Pay somebody.

        Args:
            to: who gets it.
            amount: how much.
        """
        return world.happen(f"{to} {amount}")

    return pay, apay


def forms(pay: Any, apay: Any) -> dict[str, FunctionTool]:
    """The ways to make a tool of functions."""
    return {
        "sync": tool(pay, name="pay"),
        "async": tool(apay, name="pay"),
        "only async": FunctionTool.from_defaults(async_fn=apay, name="pay"),
        "both": FunctionTool.from_defaults(pay, async_fn=apay, name="pay"),
        "partial": FunctionTool.from_defaults(pay, name="pay", partial_params={"amount": 7}),
        "callback": FunctionTool.from_defaults(pay, name="pay", callback=lambda raw: f"<{raw}>"),
    }


FORMS = ["sync", "async", "only async", "both", "partial", "callback"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["decorated", "guard_tools"])
def test_the_model_sees_no_difference(guard: Guard, world: World, form: str, how: str) -> None:
    """Name, description and schema of a guarded tool are those of the bare one."""
    bare = forms(*paying(world))[form]
    if how == "guard_tools":
        (guarded,) = guard_tools([bare], guard, effect="write", key="pay:{to}")
    else:
        both = [tool_contract(effect="write")(idempotent(key="pay:{to}")(f)) for f in paying(world)]
        guarded = forms(*both)[form]
    assert shown(guarded) == shown(bare)
    assert isinstance(guarded, FunctionTool)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_tool_one_cannot_decorate_writes_once(
    guard: Guard, world: World, form: str, kind: str
) -> None:
    """Every form of a tool is guarded in the colour it is called in, and the original is not."""
    bare = forms(*paying(world))[form]
    guarded = guard_tools([bare], guard, effect="write", key="pay:{to}")
    twice = [call(("pay", {"to": "ann"}, number)) for number in "12"]
    result = await guard_workflow(agent(kind, [*twice, "done"], guarded), guard).run(user_msg="x")
    effect = "ann 7" if form == "partial" else "ann 5"
    text = f"<done {effect}>" if form == "callback" else f"done {effect}"
    assert answers(result) == [(False, text)] * 2
    assert world.effects == [effect]
    assert (await bare.acall(to="bob")).content
    assert len(world.effects) == 2


def test_a_guarded_tool_can_be_called_directly(guard: Guard, world: World) -> None:
    """Sync calls inside a plain run are guarded too."""
    policy: Any = {"effect": "write", "key": "pay:{to}", "volatile": ["amount"]}
    for made in guard_tools(list(forms(*paying(world)).values()), guard, **policy):
        with guard.run("r"):
            assert "done ann" in made(to="ann").content  # type: ignore[call-arg]
    assert len(world.effects) == 1


async def test_policy_by_name_may_come_from_the_configuration(world: World, tmp_path: Path) -> None:
    """A list of tools needs no policy in code."""
    path = tmp_path / "agent_run.yaml"
    path.write_text(
        "agent_run:\n  tools:\n    pay:\n      effect: write\n      idempotency:\n"
        '        key: "pay:{to}"\n    look:\n      effect: read\n'
    )
    guard = Guard.from_config(path, store=f"sqlite:///{tmp_path}/agentguard.db")

    def look() -> str:
        """Look."""
        return current_run().id

    tools = guard_tools([tool(paying(world)[0]), tool(look)], guard)
    calls = call(("pay", {"to": "ann"}, "1"), ("pay", {"to": "ann"}, "2"), ("look", {}, "3"))
    workflow = guard_workflow(agent("FunctionAgent", [calls, "done"], tools), guard)
    told = answers(await workflow.run(user_msg="hello", run_id="r-1"))
    guard.close()
    assert sorted(told) == [(False, "done ann 5"), (False, "done ann 5"), (False, "r-1")]
    assert world.effects == ["ann 5"]


async def test_a_context_is_filled_in_and_is_no_argument(guard: Guard, world: World) -> None:
    """A tool that takes the workflow's context is shown to the model without it."""

    async def note(ctx: Context, text: str) -> str:
        """Note."""
        await ctx.store.set("noted", text)
        return world.happen(text)

    (guarded,) = guard_tools([tool(note)], guard, effect="write", key="note:{text}")
    assert list(shown(guarded)["function"]["parameters"]["properties"]) == ["text"]
    workflow = guard_workflow(
        agent("FunctionAgent", [call(("note", {"text": "a"}, "1")), "done"], [guarded]), guard
    )
    handler = workflow.run(user_msg="hello")
    await handler
    assert await handler.ctx.store.get("noted") == "a"


class Place(BaseModel):
    """What the tool of a server takes."""

    path: str
    lines: int = Field(default=1, ge=1)


async def test_a_tool_that_takes_anything_is_checked_against_its_schema(guard: Guard) -> None:
    """As tools of MCP servers: the function takes keywords, only the schema knows which."""

    async def call_server(**arguments: Any) -> str:
        return f"read {arguments['path']}"

    made = FunctionTool.from_defaults(
        async_fn=call_server, name="read_file", description="Read.", fn_schema=Place
    )
    (guarded,) = guard_tools([made], guard, effect="read")
    script = [
        call(("read_file", {"path": "a.txt"}, "1"), ("read_file", {"path": "b", "lines": 0}, "2")),
        "done",
    ]
    workflow = guard_workflow(agent("FunctionAgent", script, [guarded]), guard)
    told = {r.tool_id: r.tool_output for r in (await workflow.run(user_msg="hello")).tool_calls}
    assert (told["1"].content, told["2"].is_error) == ("read a.txt", True)


async def test_a_tool_of_another_class_is_guarded_by_its_text(guard: Guard, world: World) -> None:
    """A tool whose body is a method becomes one that answers with its text; errors stay errors."""

    class Bell(BaseTool):
        @property
        def metadata(self) -> ToolMetadata:
            return ToolMetadata(name="ring", description="Ring a bell.")

        def __call__(self, input: Any) -> ToolOutput:  # noqa: A002 - LlamaIndex's name
            if input == "none":
                raise KeyError(input)
            return ToolOutput(tool_name="ring", content=world.happen(input), raw_input={})

    (guarded,) = guard_tools([Bell()], guard, effect="write", key="ring:{input}")
    assert shown(guarded) == shown(Bell())
    script = [
        call(("ring", {"input": "front"}, "1"), ("ring", {"input": "front"}, "2")),
        "done",
    ]
    result = await guard_workflow(agent("FunctionAgent", script, [guarded]), guard).run(
        user_msg="hello"
    )
    assert answers(result) == [(False, "done front")] * 2
    assert world.effects == ["front"]


def test_what_is_no_tool_is_refused(guard: Guard) -> None:
    """The sentence says what to do with a function."""
    anything: Any = print
    with pytest.raises(ConfigurationError, match="takes tool objects, not builtin_function"):
        guard_tools([anything], guard, effect="read")


def test_decorating_a_tool_object_is_refused(world: World) -> None:
    """LlamaIndex would call the tool's methods, past a decorator around the object."""
    made: Any = tool(paying(world)[0])
    with pytest.raises(ConfigurationError, match="guard_tools"):
        tool_contract(effect="write")(made)


def test_copies_of_a_tool_stay_guarded(guard: Guard, world: World) -> None:
    """LlamaIndex and its users copy tools, also deeply."""
    (guarded,) = guard_tools([tool(paying(world)[0])], guard, effect="write", key="pay:{to}")
    for made in (copy.copy(guarded), copy.deepcopy(guarded)):
        with guard.run("r"):
            assert made(to="ann").content == "done ann 5"  # type: ignore[call-arg]
    assert world.effects == ["ann 5"]


def test_tools_of_engines_and_retrievers_are_tools_too(guard: Guard) -> None:
    """They can be put in the same list; the model sees the same."""

    class Engine:
        """Stands for a query engine."""

    engine: Any = Engine()
    metadata = ToolMetadata(name="ask", description="Ask.")
    for made in (QueryEngineTool(engine, metadata), RetrieverTool(engine, metadata)):
        (guarded,) = guard_tools([made], guard, effect="read")
        assert shown(guarded) == shown(made)
