"""Every model call of a guarded workflow is counted before it is made and settled afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from agentguard import BudgetExceeded, Guard, idempotent, tool_contract
from agentguard_llamaindex import guard_llm, guard_workflow
from tests.llamaindex.world import KINDS, Scripted, agent, call, tool
from tests.support import World

ASK = [ChatMessage(role="user", content="hello")]
WAYS = ["chat", "complete", "stream_chat", "stream_complete"]


def model_calls(guard: Guard, run_id: str = "r-1") -> list[Any]:
    """The recorded model calls of a run."""
    return [event for event in guard.runs.events(run_id) if event.kind == "model.called"]


async def use(model: Any, way: str) -> list[str]:
    """Ask a model in one of its ways; return what it said."""
    asked = ASK if "chat" in way else "hello"
    answer = getattr(model, way)(asked)
    if way.startswith("a"):
        answer = await answer
    if "stream" not in way:
        return [str(answer)]
    return [str(a) async for a in answer] if way.startswith("a") else [str(a) for a in answer]


@pytest.mark.parametrize("way", [*WAYS, *(f"a{way}" for way in WAYS)])
async def test_every_way_to_call_a_model_is_one_call(guard: Guard, way: str) -> None:
    """Also where one way uses another of the same model; the tokens are those of the provider."""
    model = guard_llm(Scripted(script=["well done"]))
    async with guard.run("ask", run_id="r-1"):
        assert await use(model, way) == await use(Scripted(script=["well done"]), way)
    run = guard.runs.show("r-1")
    assert (run.model_calls, run.input_tokens, run.output_tokens) == (1, 10, 5)
    assert model_calls(guard)[0].data["model"] == "scripted-1"


@pytest.mark.parametrize("way", [*WAYS, *(f"a{way}" for way in WAYS)])
async def test_a_refused_call_is_not_made(guard: Guard, way: str) -> None:
    """The budget is checked before the model is asked, in every way to ask."""
    made = []

    class Noticing(Scripted):
        def _next(self, messages: Any) -> ChatResponse:
            made.append(1)
            return super()._next(messages)

    model = guard_llm(Noticing(script=["done"]))
    with pytest.raises(BudgetExceeded):
        async with guard.run("ask", run_id="r-1", max_model_calls=0):
            await use(model, way)
    assert made == []


@pytest.mark.parametrize("way", [*WAYS, *(f"a{way}" for way in WAYS)])
async def test_a_failing_call_is_settled_with_its_error(guard: Guard, way: str) -> None:
    """A call that fails is counted, and the record names the error."""
    model = guard_llm(Scripted(script=[KeyError("provider")]))
    with pytest.raises(KeyError):
        async with guard.run("ask", run_id="r-1"):
            await use(model, way)
    (event,) = model_calls(guard)
    assert (event.data["error"], guard.runs.show("r-1").model_calls) == ("KeyError", 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_agents_model_calls_and_tokens_are_counted(
    guard: Guard, kind: str, *, streaming: bool
) -> None:
    """Both kinds of agent report every call with the tokens that the provider counted."""

    def look() -> str:
        """Look."""
        return "seen"

    script = [call(("look", {}, "1")), call(("look", {}, "2")), "done"]
    workflow = agent(kind, script, [tool(look)], streaming=streaming)
    await guard_workflow(workflow, guard).run(user_msg="hello", run_id="r-1")
    run = guard.runs.show("r-1")
    assert (run.model_calls, run.input_tokens, run.output_tokens) == (3, 30, 15)


async def test_what_was_asked_and_answered_is_in_the_record(guard: Guard) -> None:
    """The record holds the conversation as JSON: who said what, which tools were called."""

    def look(where: str) -> str:
        """Look."""
        return "seen"

    script = [call(("look", {"where": "here"}, "1")), "bye"]
    workflow = agent("FunctionAgent", script, [tool(look)], system_prompt="Be kind.")
    await guard_workflow(workflow, guard).run(user_msg="hello", run_id="r-1")
    wants = {
        "role": "assistant", "content": "",
        "tool_calls": [{"name": "look", "args": {"where": "here"}, "id": "1"}],
    }  # fmt: skip
    first, second = model_calls(guard)
    assert first.content["output"] == wants
    assert second.content["input"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hello"},
        wants,
        {"role": "tool", "content": "seen", "tool_call_id": "1"},
    ]
    assert second.content["output"] == {"role": "assistant", "content": "bye"}


async def test_sensitive_arguments_are_not_in_the_recorded_messages(
    guard: Guard, world: World
) -> None:
    """What a tool declares sensitive is hidden in the model's calls too."""

    @tool_contract(effect="write", sensitive=["iban"])
    @idempotent(key="pay:{to}")
    def pay(to: str, iban: str) -> str:
        """Pay."""
        return f"paid to {iban}"

    guard.check([pay])
    script = [call(("pay", {"to": "ann", "iban": "DE89370400440532013000"}, "1")), "done"]
    await guard_workflow(agent("FunctionAgent", script, [tool(pay)]), guard).run(
        user_msg="hello", run_id="r-1"
    )
    recorded = json.dumps([dict(event.content or {}) for event in guard.runs.events("r-1")])
    assert "DE89370400440532013000" not in recorded
    assert "ann" in recorded


async def test_a_cancelled_stream_is_settled(guard: Guard) -> None:
    """The workflow is cancelled in the middle of an answer: the call is counted, nothing is held."""
    entered = asyncio.Event()

    class Hanging(Scripted):
        async def astream_chat(self, messages: Any, **_: Any) -> Any:
            async def answers() -> AsyncGenerator[ChatResponse, None]:
                yield ChatResponse(message=ChatMessage(role="assistant", content="well"))
                entered.set()
                await asyncio.Event().wait()

            return answers()

    workflow = agent("FunctionAgent", ["done"], [])
    workflow.llm = Hanging(script=[])
    handler = guard_workflow(workflow, guard).run(user_msg="hello", run_id="r-1")
    await entered.wait()
    await handler.cancel_run()
    (event,) = model_calls(guard)
    assert event.data["error"] == "CancelledError"
    assert guard.runs.show("r-1").held_usd == 0


async def test_a_stream_that_is_closed_early_is_settled(guard: Guard) -> None:
    """Whoever has read enough leaves a call that is counted."""
    model = guard_llm(Scripted(script=["well well well"]))
    async with guard.run("ask", run_id="r-1"):
        stream = await model.astream_chat(ASK)
        assert (await anext(stream)).delta == "well"
        await stream.aclose()
        early = model.stream_chat(ASK)
        next(early)
        early.close()
    assert guard.runs.show("r-1").model_calls == 2


class Part(Event):
    """A question."""


class Answered(Event):
    """An answer, or none."""

    refused: bool


class Crowd(Workflow):
    """Asks its model, which is an attribute of it, many times at once."""

    def __init__(self, llm: Any) -> None:
        super().__init__(timeout=None)
        self.llm = llm

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Part | None:
        """Ask many things."""
        for _ in range(20):
            ctx.send_event(Part())
        return None

    @step(num_workers=20)
    async def ask(self, ev: Part) -> Answered:
        """Ask one thing."""
        try:
            await self.llm.achat(ASK)
        except BudgetExceeded:
            return Answered(refused=True)
        return Answered(refused=False)

    @step
    async def join(self, ctx: Context, ev: Answered) -> StopEvent | None:
        """Count."""
        found: Any = ctx.collect_events(ev, [Answered] * 20)
        return found and StopEvent(result=sum(answer.refused for answer in found))


async def test_parallel_model_calls_never_overshoot(guard: Guard) -> None:
    """Of many calls made at once, exactly as many are made as the budget allows."""
    made = []

    class Noticing(Scripted):
        def _next(self, messages: Any) -> ChatResponse:
            made.append(1)
            return super()._next(messages)

    workflow = guard_workflow(Crowd(Noticing(script=["done"])), guard, max_model_calls=7)
    assert await workflow.run(run_id="r-1") == 13
    assert (len(made), guard.runs.show("r-1").model_calls) == (7, 7)


async def test_a_structured_answer_is_counted(guard: Guard) -> None:
    """What an agent asks to bring its answer into shape goes through the same model."""

    class Shape(BaseModel):
        text: str

    class InOrder(Scripted):
        """Says the next thing each time it is asked."""

        def _next(self, messages: Any) -> ChatResponse:
            answer = super()._next([])
            self.script.pop(0)
            return answer

    workflow = agent("FunctionAgent", [], [], output_cls=Shape)
    workflow.llm = InOrder(script=["done", call(("Shape", {"text": "fine"}, "1"))])
    result = await guard_workflow(workflow, guard).run(user_msg="hello", run_id="r-1")
    assert result.structured_response == {"text": "fine"}
    assert guard.runs.show("r-1").model_calls == 2


async def test_a_model_outside_of_any_run_is_the_model(guard: Guard) -> None:
    """Guarding a model changes nothing where nobody counts, and guarding twice is guarding once."""
    model = Scripted(script=["done"])
    guarded = guard_llm(model)
    assert guard_llm(guarded) is guarded
    assert isinstance(guarded, Scripted)
    assert str(await guarded.achat(ASK)) == str(model.chat(ASK))
    assert guard.runs.list() == []


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 60}}, (100, 60, None)),
        ({"input_tokens": 10, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30},
         (100, 60, 30)),
        ({"prompt_token_count": 100, "cached_content_token_count": 60}, (100, 60, None)),
        ({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}}, (100, 60, None)),
        ({"prompt_tokens": 100}, (100, 0, None)),
    ],
    ids=["openai", "anthropic", "google", "responses", "none"],
)  # fmt: skip
def test_cached_tokens_are_told_as_part_of_the_input(
    guard: Guard, usage: dict[str, Any], told: tuple[int, int, int | None]
) -> None:
    """Whichever way the provider counts them."""

    class Caching(Scripted):
        def _next(self, messages: Any) -> ChatResponse:
            return super()._next(messages).model_copy(update={"raw": {"usage": usage}})

    with guard.run("ask", run_id="r-1"):
        guard_llm(Caching(script=["done"])).chat(ASK)
    data = model_calls(guard)[0].data
    found = (data["input_tokens"], data["cached_tokens"], data.get("cache_write_tokens"))
    assert found == told


def test_thoughts_are_told_as_part_of_the_answer(guard: Guard) -> None:
    """Google counts them beside the answer, and charges them like it."""
    used = {"prompt_token_count": 5, "candidates_token_count": 7, "thoughts_token_count": 400}

    class Thinking(Scripted):
        def _next(self, messages: Any) -> ChatResponse:
            return super()._next(messages).model_copy(update={"raw": {"usage_metadata": used}})

    with guard.run("ask", run_id="r-1"):
        guard_llm(Thinking(script=["done"])).chat(ASK)
    assert model_calls(guard)[0].data["output_tokens"] == 407
