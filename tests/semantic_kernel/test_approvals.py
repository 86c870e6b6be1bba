"""Calls wait for people as placeholders in the history; going on with it carries them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, TextContent
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt

from agentguard import ApprovalRequired, Guard, idempotent, requires_approval, tool_contract
from agentguard_semantic_kernel import guard_kernel, questions
from tests.semantic_kernel.world import AUTO, KINDS, Talk, call, kernel_of, results_in, scripted
from tests.support import World


def paying(world: World, key: dict[str, Any] | None = None, **approval: Any) -> Any:
    """A function that needs a person above 50."""

    @tool_contract(effect="write", sensitive=["iban"])
    @idempotent(**(key or {"key": "pay:{to}"}))
    @requires_approval(**{"when": "amount > 50", **approval})
    def pay(to: str, amount: int, iban: str = "") -> str:
        """Pay *amount* to *to*."""
        return world.happen(f"{to} {amount}")

    return pay


def asked(*names: str, amount: int = 100) -> Any:
    """The model wants to pay several people in one message."""
    return call(*(("pay", {"to": n, "amount": amount, "iban": "DE89"}, n) for n in names))


def approve(guard: Guard, *, but: tuple[str, ...] = ()) -> None:
    """Say yes to all that waits, but to some people."""
    for approval in guard.approvals.list("pending"):
        if approval.arguments["to"] not in but:
            guard.approvals.decide(approval.id, "approve", by="dana")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restored", [False, True])
async def test_an_approved_call_runs_once_when_the_history_is_gone_on_with(
    guard: Guard, world: World, kind: str, *, restored: bool
) -> None:
    """The turn ends with a placeholder, and goes on from there, in this process or in another."""
    model = scripted(asked("ann"), "paid")
    kernel = guard_kernel(kernel_of(model, paying(world)), guard)
    talk = Talk(kernel, kind)
    async with guard.run("refunds", run_id="r-1"):
        said = await talk.ask("pay ann")
    (question,) = questions(said)
    assert (said[0].role, world.effects) == (AuthorRole.TOOL, [])
    assert json.loads(talk.results["ann"])["approval_id"] == question["approval_id"]
    assert guard.runs.show("r-1").status == "waiting"
    approve(guard)
    talk = Talk(kernel, kind, talk.saved) if restored else talk
    async with guard.run("refunds", run_id="r-1"):
        said = await talk.ask()
    assert (str(said[0]), talk.results) == ("paid", {"ann": "done ann 100"})
    assert [m.role.value for m in talk.history] == ["user", "assistant", "tool", "assistant"]
    assert (world.effects, questions(talk.history)) == (["ann 100"], [])
    assert guard.runs.show("r-1").status == "succeeded"
    assert len(model.asked) == 2


async def test_the_question_says_all_that_a_person_needs(guard: Guard, world: World) -> None:
    """It is plain JSON, also in a saved history, and holds nothing sensitive."""
    tool = paying(world, roles=["finance"], quorum=2, allow_edit=True)
    talk = Talk(guard_kernel(kernel_of(scripted(asked("ann"), "paid"), tool), guard))
    await talk.ask("pay ann")
    (question,) = questions(ChatHistory.restore_chat_history(talk.saved))
    (approval,) = guard.approvals.list("pending")
    assert question["approval_id"] == approval.id
    assert question["arguments"] == {"to": "ann", "amount": 100, "iban": "[hidden]"}
    assert (question["roles"], question["quorum"]) == (["finance"], 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [None, "and?"])
async def test_while_nobody_has_decided_no_model_is_asked(
    guard: Guard, world: World, kind: str, text: str | None
) -> None:
    """Going on is no yes, with a new message or without: the same placeholder comes back."""
    model = scripted(asked("ann"), "paid", "paid")
    talk = Talk(guard_kernel(kernel_of(model, paying(world)), guard), kind)
    first = questions(await talk.ask("pay ann"))
    assert (
        questions(await talk.ask(text) if text is None or kind[0] == "s" else talk.history) == first
    )
    assert (len(model.asked), world.effects) == (1, [])
    approve(guard)
    await talk.ask(text)
    assert (len(model.asked), world.effects) == (2, ["ann 100"])
    assert talk.results == {"ann": "done ann 100"}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_call_of_a_message_gets_its_own_decision(
    guard: Guard, world: World, kind: str
) -> None:
    """What was decided is carried out, the rest goes on waiting, and nothing runs twice."""
    calls = [*asked("free", amount=1), *asked("ann", "bob", "eve")]
    for n, one in enumerate(calls):
        one.index = n
    kernel = guard_kernel(kernel_of(scripted(calls, "paid"), paying(world)), guard)
    talk = Talk(kernel, kind)
    async with guard.run("refunds", run_id="r-1"):
        assert len(questions(await talk.ask("pay"))) == 3
        approve(guard, but=("bob", "eve"))
        assert len(questions(await talk.ask())) == 2
        assert world.effects == ["free 1", "ann 100"]
        (bob,) = [a for a in guard.approvals.list("pending") if a.arguments["to"] == "bob"]
        guard.approvals.decide(bob.id, "reject", by="dana", reason="not him")
        approve(guard)
        said = await talk.ask()
    assert str(said[0]) == "paid"
    assert world.effects == ["free 1", "ann 100", "eve 100"]
    assert json.loads(talk.results["bob"])["error"] == "approval_rejected"
    assert "not him" in talk.results["bob"]
    assert guard.runs.show("r-1").status == "succeeded"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_history_knows_its_run(guard: Guard, world: World, kind: str) -> None:
    """Without any run id, going on with a history goes on with the run in which it stopped."""
    kernel = guard_kernel(
        kernel_of(scripted(asked("ann"), "paid"), paying(world, {"per": "call"})), guard
    )
    talk = Talk(kernel, kind)
    await talk.ask("pay ann")
    approve(guard)
    await Talk(kernel, kind, talk.saved).ask()
    (run,) = guard.runs.list()
    assert (run.status, run.model_calls, world.effects) == ("succeeded", 2, ["ann 100"])


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_without_ids_get_their_own_results(
    guard: Guard, world: World, kind: str
) -> None:
    """Some models give no ids, and results come in the order in which the calls end."""
    calls = [*asked("ann"), *asked("free", amount=1)]
    for n, one in enumerate(calls):
        one.id, one.index = None, n
    kernel = guard_kernel(kernel_of(scripted(calls, "paid"), paying(world, {"per": "call"})), guard)
    talk = Talk(kernel, kind)
    await talk.ask("pay")
    talk.history.messages[-2:] = reversed(talk.history.messages[-2:])
    approve(guard)
    await talk.ask()
    assert world.effects == ["free 1", "ann 100"]
    assert {str(r.result) for r in results_in(talk.history)} == {"done free 1", "done ann 100"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_without_a_result_is_carried_out(
    guard: Guard, world: World, kind: str
) -> None:
    """A process died after the model had spoken: its call is carried out, and once."""
    model = scripted(asked("ann", "bob", amount=1), "paid")
    kernel = guard_kernel(kernel_of(model, paying(world)), guard)
    history = ChatHistory()
    history.add_user_message("pay ann")
    history.add_message(ChatMessageContent(role=AuthorRole.ASSISTANT, items=asked("ann", amount=1)))
    for _ in range(2):
        talk = Talk(kernel, kind, history.serialize())
        assert str((await talk.ask())[0]) == "paid"
        assert [m.role.value for m in talk.history] == ["user", "assistant", "tool", "assistant"]
        assert talk.results == {"ann": "done ann 1"}
    assert world.effects == ["ann 1"]


async def test_a_late_result_stands_behind_its_call(guard: Guard, world: World) -> None:
    """Providers want results right after the calls, also when a user has spoken since."""
    kernel = guard_kernel(kernel_of(scripted("", "paid"), paying(world)), guard)
    talk = Talk(kernel, "service")
    talk.history.add_message(
        ChatMessageContent(role=AuthorRole.ASSISTANT, items=asked("ann", amount=1))
    )
    await talk.ask("well?")
    roles = [m.role.value for m in talk.history]
    assert roles == ["assistant", "tool", "user", "assistant"]


async def test_a_conversation_that_has_gone_on_is_left_alone(guard: Guard, world: World) -> None:
    """A call without a result is not carried out once a model has spoken after it."""
    kernel = guard_kernel(kernel_of(scripted("", "", "fine"), paying(world)), guard)
    talk = Talk(kernel, "service")
    said: list[list[Any]] = [asked("ann", amount=1), [TextContent(text="never mind")]]
    for items in said:
        talk.history.add_message(ChatMessageContent(role=AuthorRole.ASSISTANT, items=items))
    assert str((await talk.ask("well?"))[0]) == "fine"
    assert (world.effects, talk.results) == ([], {})


async def test_who_calls_functions_themselves_goes_on_themselves(
    guard: Guard, world: World
) -> None:
    """Without automatic invocation nothing in the history is carried out."""
    kernel = guard_kernel(kernel_of(scripted("", "fine"), paying(world)), guard)
    chat: Any = kernel.get_service(type=ChatCompletionClientBase)
    history = ChatHistory()
    history.add_message(ChatMessageContent(role=AuthorRole.ASSISTANT, items=asked("ann", amount=1)))
    manual = FunctionChoiceBehavior.Auto(auto_invoke=False)
    for behavior in (None, manual):
        settings = PromptExecutionSettings(function_choice_behavior=behavior)
        await chat.get_chat_message_contents(history, settings, kernel=kernel)
    assert (world.effects, len(history)) == ([], 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_model_is_told_what_a_person_changed(
    guard: Guard, world: World, kind: str
) -> None:
    """Beside the result of an edited call stands what was changed."""
    tool = paying(world, allow_edit=True)
    talk = Talk(guard_kernel(kernel_of(scripted(asked("ann"), "paid"), tool), guard), kind)
    await talk.ask("pay ann")
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "edit", by="erin", edits={"amount": 60})
    approve(guard)
    await talk.ask()
    told = 'A person changed the arguments before this ran: {"amount": 60}'
    assert talk.results == {"ann": f"done ann 60\n{told}"}
    assert world.effects == ["ann 60"]


async def test_a_prompt_goes_on_with_its_messages(guard: Guard, world: World) -> None:
    """`kernel.invoke_prompt` gives the placeholder, and the history in its metadata."""
    kernel = guard_kernel(kernel_of(scripted(asked("ann"), "paid"), paying(world)), guard)
    settings = PromptExecutionSettings(function_choice_behavior=AUTO)
    paused: Any = await kernel.invoke_prompt("pay ann", arguments=KernelArguments(settings))
    assert len(questions(paused.value)) == 1
    approve(guard)
    chat: Any = kernel.get_service(type=ChatCompletionClientBase)
    history = paused.metadata["messages"]
    (said,) = await chat.get_chat_message_contents(history, settings, kernel=kernel)
    assert (str(said), world.effects) == ("paid", ["ann 100"])


async def test_an_invoked_function_that_waits_says_so_to_its_caller(
    guard: Guard, world: World
) -> None:
    """Where no model waits for a result, `ApprovalRequired` is raised; calling again goes on."""
    kernel = guard_kernel(kernel_of(None, paying(world)), guard)

    async def pay() -> Any:
        return await kernel.invoke(plugin_name="shop", function_name="pay", to="ann", amount=100)

    with pytest.raises(ApprovalRequired) as waits:
        async with guard.run("refunds", run_id="r-1"):
            await pay()
    assert guard.runs.show("r-1").status == "waiting"
    guard.approvals.decide(waits.value.approval.id, "approve", by="dana")
    async with guard.run("refunds", run_id="r-1"):
        assert str(await pay()) == "done ann 100"
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_deep_inside_waits_as_the_call_around_it(
    guard: Guard, world: World, kind: str
) -> None:
    """Nobody sees the history of a prompt that a model called, so the outer call waits."""
    kernel = kernel_of(None, paying(world, {"per": "call"}))
    kernel.add_service(scripted(call(("clerk", {}, "1")), "done", service_id="outer"))
    kernel.add_service(scripted(asked("ann"), "paid", service_id="inner"))
    settings = PromptExecutionSettings(service_id="inner", function_choice_behavior=AUTO)
    kernel.add_function(
        "shop",
        KernelFunctionFromPrompt("clerk", "shop", prompt="pay", prompt_execution_settings=settings),
    )
    talk = Talk(guard_kernel(kernel, guard), kind)
    async with guard.run("refunds", run_id="r-1"):
        (question,) = questions(await talk.ask("go"))
    assert (question["tool"], guard.runs.show("r-1").status) == ("pay", "waiting")
    approve(guard)
    async with guard.run("refunds", run_id="r-1"):
        said = await talk.ask()
    assert (str(said[0]), world.effects) == ("done", ["ann 100"])
    assert "paid" in talk.results["1"]
    assert guard.runs.show("r-1").status == "succeeded"


async def test_no_filter_hides_that_a_call_waits(guard: Guard, world: World) -> None:
    """A filter that turns every error into a result is not asked about refusals."""

    async def soothing(context: Any, next: Callable[[Any], Any]) -> None:  # noqa: A002 - SK's name
        try:
            await next(context)
        except Exception:  # noqa: BLE001 - this is what the test is about
            context.result = None

    kernel = kernel_of(scripted(asked("ann"), "paid"), paying(world))
    kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, soothing)
    talk = Talk(guard_kernel(kernel, guard))
    assert len(questions(await talk.ask("pay ann"))) == 1
    approve(guard)
    await talk.ask()
    assert (talk.results, world.effects) == ({"ann": "done ann 100"}, ["ann 100"])
