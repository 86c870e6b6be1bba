"""LlamaIndex beside instrumentations: every way in which a guarded tool is called."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

from llama_index.core.tools import AsyncBaseTool, FunctionTool, ToolMetadata, ToolOutput
from pydantic import BaseModel
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

from agentguard import Guard, Principal, idempotent, requires_approval, tool_contract
from agentguard_llamaindex import LlamaIndexHost, guard_tools, guard_workflow
from tests.beside.spans import Recorder, recording, show, work
from tests.llamaindex.world import KINDS, agent, call, tool, until_asked, yes

WHO = Principal(agent="support", scopes=frozenset({"payments"}))


def pay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    return work(f"{to} {amount}")


async def apay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    await asyncio.sleep(0)
    return work(f"{to} {amount}")


def drop(to: str) -> str:
    """Drop *to*."""
    return work(to)


def decorated(*, asynchronous: bool) -> list[FunctionTool]:
    """Tools over decorated functions."""
    function: Any = apay if asynchronous else pay
    paying = requires_approval(when="amount > 50")(idempotent(key="pay:{to}")(function))
    dropping = idempotent(key="drop:{to}")(drop)
    return [
        tool(tool_contract(effect="write", name="pay")(paying), name="pay"),
        tool(tool_contract(effect="write", name="drop", scopes=["admin"])(dropping), name="drop"),
    ]


def undecorated(guard: Guard, *, asynchronous: bool) -> list[Any]:
    """The same tools, guarded from outside."""
    paying, dropping = tool(apay if asynchronous else pay, name="pay"), tool(drop)
    return [
        *guard_tools([paying], guard, effect="write", key="pay:{to}", when="amount > 50"),
        *guard_tools([dropping], guard, effect="write", key="drop:{to}", scopes=["admin"]),
    ]


def paid(amount: int, *calls: str) -> list[Any]:
    """The model pays, once for each of *calls*, and is done."""
    return [*(call(("pay", {"to": "ann", "amount": amount}, one)) for one in calls), "done"]


SCRIPTS = {
    "ok": paid(5, "1"),
    "wait": paid(100, "1"),
    "deny": [call(("drop", {"to": "ann"}, "1")), "done"],
    "replay": paid(5, "1", "2"),
    "two": [call(*(("pay", {"to": to, "amount": 5}, to) for to in ("ann", "bob"))), "done"],
}


async def talk(recorder: Recorder, kind: str, way: str, colour: str) -> None:
    """Let an agent do all that its scripts say."""
    for case, script in SCRIPTS.items():
        name = f"{kind}, {way}, {colour}: {case}"
        with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard:
            asynchronous = colour == "async"
            ours = undecorated(guard, asynchronous=asynchronous) if way == "guard_tools" else None
            tools = ours or decorated(asynchronous=asynchronous)
            guarded = guard_workflow(agent(kind, script, tools), guard)
            handler = guarded.run(user_msg="hello", run_id=name)
            if case == "wait":
                (question,) = await until_asked(handler)
                handler.ctx.send_event(yes(question))
            await handler


class Payment(BaseModel):
    """What a payment needs."""

    to: str
    amount: int


class PayTool(AsyncBaseTool):
    """A tool that has its body in methods."""

    @property
    def metadata(self) -> ToolMetadata:
        """What the model is told."""
        return ToolMetadata(name="pay", description="Pay.", fn_schema=Payment)

    def call(self, *_: Any, **given: Any) -> ToolOutput:
        """Never called: an agent awaits its tools."""
        raise NotImplementedError

    async def acall(self, *_: Any, **given: Any) -> ToolOutput:
        """Pay."""
        told = work(f"{given['to']}")
        return ToolOutput(content=told, tool_name="pay", raw_input=given, raw_output=told)


async def of_a_class(recorder: Recorder) -> None:
    """Let an agent call a tool that is not made from a function."""
    name = "a tool of a class: ok"
    with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard:
        tools = guard_tools([PayTool()], guard, effect="write", key="pay:{to}")
        guarded = guard_workflow(agent(KINDS[0], SCRIPTS["ok"], tools), guard)
        await guarded.run(user_msg="hello", run_id=name)


def outer(to: str) -> str:
    """Pay *to* by a tool inside a tool that is not guarded."""
    return str(decorated(asynchronous=False)[0](to=to, amount=5))


def around(to: str) -> str:
    """Pay *to* by a function inside a tool that is not guarded."""
    return str(decorated(asynchronous=False)[0].real_fn(to=to, amount=5))


class ByHand(Workflow):
    """A loop that somebody wrote: a step calls a tool."""

    way: str = ""

    @step
    async def calls(self, _: StartEvent) -> StopEvent:
        """Call a tool."""
        if self.way == "a tool in a step":
            await decorated(asynchronous=True)[0].acall(to="ann", amount=5)
        elif self.way == "a tool as a function":
            decorated(asynchronous=False)[0](to="ann", amount=5)
        else:
            tool(outer if self.way == "a tool in another tool" else around).call(to="ann")
        return StopEvent()


async def by_hand(recorder: Recorder) -> None:
    """Call tools in a step, where no model has called them."""
    ways = "a tool in a step", "a tool as a function", "a tool in another tool"
    for way in (*ways, "a function in another tool"):
        with recorder.case(f"{way}: ok"), closing(Guard("memory://", principal=WHO)) as guard:
            loop = ByHand()
            loop.way = way
            await guard_workflow(loop, guard).run(run_id=f"{way}: ok")


async def main() -> None:
    """Do it all and show the spans."""
    recorder = recording(LlamaIndexHost)
    for way in ("decorated", "guard_tools"):
        for colour in ("sync", "async"):
            await talk(recorder, KINDS[0], way, colour)
    await talk(recorder, KINDS[1], "decorated", "async")
    await by_hand(recorder)
    await of_a_class(recorder)
    show(recorder)


if __name__ == "__main__":
    asyncio.run(main())
