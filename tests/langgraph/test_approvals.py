"""Approvals pause the graph; the store alone says what was decided, and for which call."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentguard import (
    ApprovalRequired,
    Guard,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard_langgraph import guard_graph
from tests.langgraph.world import (
    HELLO,
    Scripted,
    answers,
    call,
    looped,
    one_node,
    questions,
    say,
    thread,
    yes,
)
from tests.support import World


def paying(world: World, **approval: Any) -> BaseTool:
    """A tool that needs a person above 50."""

    @tool
    @tool_contract(effect="write", sensitive=["iban"])
    @idempotent(key="pay:{to}")
    @requires_approval(**{"when": "amount > 50", **approval})
    def pay(to: str, amount: int, iban: str = "") -> str:
        """Pay *amount* to *to*."""
        return world.happen(f"{to} {amount}")

    return pay


def asked(*names: str, amount: int = 100) -> Any:
    """The model wants to pay several people in one turn."""
    return call(*(("pay", {"to": name, "amount": amount, "iban": "DE89"}, name) for name in names))


def agent(kind: str, script: list[Any], tools: list[BaseTool], saver: InMemorySaver | None) -> Any:
    """Either kind of agent loop."""
    model = Scripted(script=script)
    if kind == "ToolNode":
        return looped(model, tools).compile(checkpointer=saver)
    return create_agent(model, tools, checkpointer=saver)


KINDS = ["ToolNode", "create_agent"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_approved_call_runs_once(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, *, asynchronous: bool
) -> None:
    """The graph pauses before the effect; a resume value that names the approval lets it happen."""
    graph = guard_graph(agent(kind, [asked("ann"), say()], [paying(world)], saver), guard)

    def run(what: Any) -> Any:
        if asynchronous:
            return asyncio.run(graph.ainvoke(what, thread()))
        return graph.invoke(what, thread())

    (question,) = questions(run(HELLO))
    assert (world.effects, guard.runs.show("r-1").status) == ([], "waiting")
    result = run(Command(resume=yes(question)))
    assert answers(result) == [("success", "done ann 100")]
    assert (world.effects, guard.runs.show("r-1").status) == (["ann 100"], "succeeded")


def test_the_question_says_all_that_a_person_needs(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """The interrupt's payload is plain JSON, without sensitive arguments, and says how to answer."""
    tools = [paying(world, roles=["finance"], quorum=2, allow_edit=True)]
    graph = guard_graph(agent("ToolNode", [asked("ann"), say()], tools, saver), guard)
    (question,) = questions(graph.invoke(HELLO, thread()))
    asked_for = json.loads(json.dumps(question.value))
    (approval,) = guard.approvals.list("pending")
    assert asked_for.pop("arguments") == {"to": "ann", "amount": 100, "iban": "[hidden]"}
    assert "DE89" not in json.dumps(question.value)
    assert asked_for.pop("how").endswith(
        f"agentguard approvals approve {approval.id} --by NAME, and invoke the graph again with None."
    )
    assert asked_for == {
        "type": "agentguard.approval",
        "approval_id": approval.id,
        "generation": 1,
        "tool": "pay",
        "rule": approval.rule,
        "roles": ["finance"],
        "quorum": 2,
        "requested_by": approval.requested_by,
        "expires_at": approval.expires_at.isoformat(),
        "allow_edit": True,
        "resume": {
            "approval_id": approval.id, "generation": 1, "decision": "approve or reject",
            "by": "", "roles": [], "reason": "",
        },
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [None, HELLO])
def test_a_decision_in_the_store_is_enough(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, again: Any
) -> None:
    """After deciding elsewhere, invoking with None, or with a new message, goes on."""
    script = [asked("ann"), say()] if again is None else [asked("ann"), asked("ann"), say()]
    graph = guard_graph(agent(kind, script, [paying(world)], saver), guard)
    graph.invoke(HELLO, thread())
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "approve", by="dana")
    graph.invoke(again, thread())
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["yes", True, {"approve": True}, {"decision": "approve"}, [1], 0])
def test_being_resumed_is_not_being_approved(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, value: Any
) -> None:
    """A resume value that names no approval decides nothing; the graph asks again and says why."""
    graph = guard_graph(agent(kind, [asked("ann"), say()], [paying(world)], saver), guard)
    graph.invoke(HELLO, thread())
    (question,) = questions(graph.invoke(Command(resume=value), thread()))
    assert question.value["problem"] == (
        "The answer named no approval, so nobody was taken to have decided."
    )
    assert world.effects == []
    graph.invoke(Command(resume=yes(question)), thread())
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"by": ""}, "a decision must say by"),
        ({"by": "agent"}, "agent"),
        ({"roles": ["sales"]}, "role finance"),
        ({"decision": "maybe"}, "maybe"),
        ({"generation": 7}, "was edited meanwhile"),
        ({"amount": 1}, "no field 'amount'"),
        ({"roles": "finance"}, "roles in a decision must be a list"),
    ],
)
def test_a_decision_that_cannot_be_taken_is_asked_for_again(
    guard: Guard, world: World, saver: InMemorySaver, more: dict[str, Any], problem: str
) -> None:
    """Wrong people and wrong words decide nothing, and the next question says what was wrong."""
    tools = [paying(world, roles=["finance"])]
    graph = guard_graph(agent("ToolNode", [asked("ann"), say()], tools, saver), guard)
    (question,) = questions(graph.invoke(HELLO, thread()))
    answer = {**yes(question, roles=["finance"]), **more}
    (question,) = questions(graph.invoke(Command(resume=answer), thread()))
    assert problem in question.value["problem"]
    assert world.effects == []


@pytest.mark.parametrize("kind", KINDS)
def test_several_approvals_in_one_turn_are_decided_one_by_one(
    guard: Guard, world: World, saver: InMemorySaver, kind: str
) -> None:
    """Each call of a turn waits for its own approval, and none is repeated by another's."""
    calls = call(
        ("pay", {"to": "free", "amount": 1}, "0"),
        *(("pay", {"to": name, "amount": 100}, name) for name in ("ann", "bob", "eve")),
    )
    graph = guard_graph(agent(kind, [calls, say()], [paying(world)], saver), guard)
    result = graph.invoke(HELLO, thread())
    assert world.effects == ["free 1"]
    while open_questions := questions(result):
        (question, *_) = open_questions
        decision = {"decision": "reject", "reason": "no"} if (
            question.value["arguments"]["to"] == "bob"
        ) else {}  # fmt: skip
        answer = {question.id: {**yes(question), **decision}}
        result = graph.invoke(Command(resume=answer), thread())
    told = dict(zip(("free", "ann", "bob", "eve"), answers(result), strict=True))
    assert sorted(world.effects) == ["ann 100", "eve 100", "free 1"]
    assert [told[name][0] for name in told] == ["success", "success", "error", "success"]
    assert json.loads(told["bob"][1])["error"] == "approval_rejected"


def waiting_for(guard: Guard, name: str) -> str:
    """The id of the approval that somebody's payment waits for."""
    return next(a.id for a in guard.approvals.list("pending") if a.arguments["to"] == name)


def test_one_resume_value_may_decide_on_several_calls(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A list of decisions is handed to the store whichever call it was delivered to."""
    script = [asked("ann", "bob"), say()]
    graph = guard_graph(agent("create_agent", script, [paying(world)], saver), guard)
    (question, _) = questions(graph.invoke(HELLO, thread()))
    both = [
        {"approval_id": waiting_for(guard, name), "decision": "approve", "by": "dana"}
        for name in ("ann", "bob")
    ]
    graph.invoke(Command(resume={question.id: both}), thread())
    graph.invoke(None, thread())  # LangGraph resumed one task; what is decided for the other stands
    assert sorted(world.effects) == ["ann 100", "bob 100"]


def test_a_misdelivered_answer_counts_for_the_call_it_names(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Where the runtime hands ann's answer to bob's call, ann is paid and bob still waits."""
    order: list[str] = []
    turn = threading.Condition()

    def in_order(name: str) -> None:
        with turn:
            turn.wait_for(lambda: order[0] == name, timeout=10)

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    @requires_approval()
    def pay(to: str) -> str:
        """Pay *to*."""
        return world.happen(to)

    class Ordered(BaseTool):
        """Makes parallel calls arrive in a given order."""

        name: str = "pay"
        description: str = "Pay."
        args_schema: Any = pay.args_schema

        def _run(self, to: str) -> Any:
            in_order(to)
            try:
                return pay.invoke({"to": to})
            finally:
                with turn:
                    order.pop(0)
                    turn.notify_all()

    calls = call(("pay", {"to": "ann"}, "a"), ("pay", {"to": "bob"}, "b"))
    graph = guard_graph(agent("ToolNode", [calls, say()], [Ordered()], saver), guard)
    order[:] = ["ann", "bob"]
    (question,) = questions(graph.invoke(HELLO, thread()))
    assert question.value["arguments"] == {"to": "ann"}
    order[:] = ["bob", "ann"]  # bob's call now is the first to ask for a resume value
    (question,) = questions(graph.invoke(Command(resume=yes(question)), thread()))
    assert (question.value["arguments"], world.effects) == ({"to": "bob"}, ["ann"])


def test_an_answer_never_reaches_the_users_own_interrupt(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """After an approval, the node's own question later on gets its own answer, and only that."""
    pay = paying(world)

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        first = interrupt("first?")
        paid = pay.invoke({"to": "ann", "amount": 100})
        second = interrupt("second?")
        return {"messages": [("ai", f"{first} {paid} {second}")]}

    graph = guard_graph(one_node(node).compile(checkpointer=saver), guard)
    assert questions(graph.invoke(HELLO, thread()))[0].value == "first?"
    (question,) = questions(graph.invoke(Command(resume="1"), thread()))
    result = graph.invoke(Command(resume=yes(question)), thread())
    assert questions(result)[0].value == "second?"
    result = graph.invoke(Command(resume="2"), thread())
    assert result["messages"][-1].content == "1 done ann 100 2"
    assert world.effects == ["ann 100"]


def test_deciding_elsewhere_does_not_shift_the_users_own_answers(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """The same holds when the approval was decided in the store and not by a resume value."""
    pay = paying(world)

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        paid = pay.invoke({"to": "ann", "amount": 100})
        return {"messages": [("ai", f"{paid} {interrupt('well?')}")]}

    graph = guard_graph(one_node(node).compile(checkpointer=saver), guard)
    graph.invoke(HELLO, thread())
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "approve", by="dana")
    assert questions(graph.invoke(None, thread()))[0].value == "well?"
    result = graph.invoke(Command(resume="fine"), thread())
    assert result["messages"][-1].content == "done ann 100 fine"


def test_two_people_decide_in_two_resumes(guard: Guard, world: World, saver: InMemorySaver) -> None:
    """With a quorum of two the graph asks until two different people have said yes."""
    graph = guard_graph(
        agent("ToolNode", [asked("ann"), say()], [paying(world, quorum=2)], saver), guard
    )
    (question,) = questions(graph.invoke(HELLO, thread()))
    for _ in range(2):  # the same person twice is one person
        (question,) = questions(graph.invoke(Command(resume=yes(question)), thread()))
    assert world.effects == []
    graph.invoke(Command(resume=yes(question, by="erin")), thread())
    assert world.effects == ["ann 100"]


def test_an_edit_runs_only_after_somebody_else_approved_it(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """What was approved before an edit does not count for the edited call, also when replayed."""
    tools = [paying(world, quorum=2, allow_edit=True)]
    graph = guard_graph(agent("ToolNode", [asked("ann"), say()], tools, saver), guard)
    (question,) = questions(graph.invoke(HELLO, thread()))
    early = yes(question, by="dana")
    (question,) = questions(graph.invoke(Command(resume=early), thread()))
    edit = yes(question, by="erin", decision="edit", edits={"amount": 70})
    (question,) = questions(graph.invoke(Command(resume=edit), thread()))
    assert (question.value["generation"], question.value["arguments"]["amount"]) == (2, 70)
    for stale in (early, edit):  # delivered once more
        (question,) = questions(graph.invoke(Command(resume=stale), thread()))
        assert "was edited meanwhile" in question.value["problem"]
    (question,) = questions(graph.invoke(Command(resume=yes(question, by="dana")), thread()))
    graph.invoke(Command(resume=yes(question, by="finn")), thread())
    assert world.effects == ["ann 70"]


def test_a_rejected_call_never_runs_whatever_the_predicate_says_on_resume(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """The rule's answer is frozen with the question; turning the rule around afterwards is late."""
    rule = {"amount": 50}

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    @requires_approval(when=lambda amount: amount > rule["amount"])
    def pay(to: str, amount: int) -> str:
        """Pay."""
        return world.happen(to)

    calls = call(("pay", {"to": "ann", "amount": 100}, "1"))
    graph = guard_graph(agent("create_agent", [calls, say()], [pay], saver), guard)
    (question,) = questions(graph.invoke(HELLO, thread()))
    rule["amount"] = 1000
    no = yes(question, decision="reject", reason="fraud")
    result = graph.invoke(Command(resume=no), thread())
    assert (world.effects, answers(result)[0][0]) == ([], "error")


def test_langchains_own_middleware_runs_the_rejected_call(
    world: World, saver: InMemorySaver
) -> None:
    """What the test above protects from: there the predicate is asked again, and then runs it."""
    rule = {"amount": 50}

    @tool
    def pay(to: str, amount: int) -> str:
        """Pay."""
        return world.happen(to)

    middleware = HumanInTheLoopMiddleware(
        interrupt_on={
            "pay": {
                "allowed_decisions": ["approve", "reject"],
                "when": lambda request: request.tool_call["args"]["amount"] > rule["amount"],
            }
        }
    )
    calls = call(("pay", {"to": "ann", "amount": 100}, "1"))
    graph = create_agent(
        Scripted(script=[calls, say()]), [pay], middleware=[middleware], checkpointer=saver
    )
    graph.invoke(HELLO, thread())
    rule["amount"] = 1000
    graph.invoke(Command(resume={"decisions": [{"type": "reject"}]}), thread())
    assert world.effects == ["ann"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_checkpointer_the_caller_is_told_to_get_approval(
    guard: Guard, world: World, kind: str
) -> None:
    """A pause that nobody could resume is raised instead, and the same run goes on afterwards."""
    plain = agent(kind, [asked("ann"), say()], [paying(world)], None)
    graph = guard_graph(plain, guard, run_id="r-1")
    with pytest.raises(ApprovalRequired) as raised:
        graph.invoke(HELLO)
    assert world.effects == []
    guard.approvals.decide(raised.value.approval.id, "approve", by="dana")
    graph.invoke(HELLO)
    assert world.effects == ["ann 100"]


def test_an_approval_in_a_subgraph_pauses_the_whole(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A question that comes up two graphs deep is answered at the top."""
    inner = agent("create_agent", [asked("ann"), say()], [paying(world)], None)
    builder = StateGraph(MessagesState)
    builder.add_node("sub", inner)
    builder.add_edge(START, "sub")
    graph = guard_graph(builder.compile(checkpointer=saver), guard)
    (question,) = questions(graph.invoke(HELLO, thread()))
    graph.invoke(Command(resume=yes(question)), thread())
    assert world.effects == ["ann 100"]


def test_an_approval_goes_through_another_process(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Nothing about a question is remembered in memory: other objects on the same stores go on."""
    script = [asked("ann"), say()]
    first = guard_graph(agent("create_agent", script, [paying(world)], saver), guard)
    (question,) = questions(first.invoke(HELLO, thread()))
    other = Guard(guard.store.url)
    second = guard_graph(agent("create_agent", script, [paying(world)], saver), other)
    second.invoke(Command(resume=yes(question)), thread())
    other.close()
    assert world.effects == ["ann 100"]


def test_streaming_shows_the_question(guard: Guard, world: World, saver: InMemorySaver) -> None:
    """A streamed graph yields the interrupt and ends; a second stream goes on."""
    graph = guard_graph(agent("ToolNode", [asked("ann"), say()], [paying(world)], saver), guard)
    steps = list(graph.stream(HELLO, thread(), stream_mode="updates"))
    (question,) = steps[-1]["__interrupt__"]
    list(graph.stream(Command(resume=yes(question)), thread()))
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_model_is_told_what_an_editor_changed(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, *, asynchronous: bool
) -> None:
    """The tool's answer says which arguments ran instead of those that the model wanted."""
    tools = [paying(world, allow_edit=True)]
    graph = guard_graph(agent(kind, [asked("ann"), say()], tools, saver), guard)
    graph.invoke(HELLO, thread())
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "edit", by="erin", edits={"amount": 70})
    guard.approvals.decide(approval.id, "approve", by="dana")
    result = (
        asyncio.run(graph.ainvoke(None, thread())) if asynchronous else graph.invoke(None, thread())
    )
    told = "A person changed the arguments before this ran"
    assert answers(result) == [("success", f'done ann 70\n{told}: {{"amount": 70}}')]
    assert world.effects == ["ann 70"]


def test_the_model_is_told_of_an_edit_also_when_the_call_is_replayed(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A sibling that pauses makes ToolNode execute the edited call again: its answer is the same."""
    tools = [paying(world, allow_edit=True)]
    graph = guard_graph(agent("ToolNode", [asked("ann", "bob"), say()], tools, saver), guard)
    graph.invoke(HELLO, thread())
    ann = waiting_for(guard, "ann")
    guard.approvals.decide(ann, "edit", by="erin", edits={"amount": 70})
    guard.approvals.decide(ann, "approve", by="dana")
    graph.invoke(None, thread())
    guard.approvals.decide(waiting_for(guard, "bob"), "approve", by="dana")
    first, _ = answers(graph.invoke(None, thread()))
    assert first[1].startswith("done ann 70\nA person changed")
    assert sorted(world.effects) == ["ann 70", "bob 100"]


def test_an_edited_call_inside_a_tools_own_code_returns_its_plain_result(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Code that uses a guarded function gets what the function returned; the model gets the note."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    @requires_approval(allow_edit=True)
    def pay(to: str, amount: int) -> dict[str, int]:
        world.happen(f"{to} {amount}")
        return {"paid": amount}

    @tool
    def settle() -> str:
        """Settle."""
        return f"settled {pay('ann', 100)['paid']}"

    graph = guard_graph(
        agent("ToolNode", [call(("settle", {}, "1")), say()], [settle], saver), guard
    )
    graph.invoke(HELLO, thread())
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "edit", by="erin", edits={"amount": 70})
    guard.approvals.decide(approval.id, "approve", by="dana")
    ((_, told),) = answers(graph.invoke(None, thread()))
    assert told.startswith("settled 70\nA person changed the arguments")
