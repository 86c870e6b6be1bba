"""A waiting call asks and is answered in one shape, and only the store says what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agentguard import (
    ApprovalRequired,
    Guard,
    Principal,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.hosting import edits_note, hand_over, is_decision, question
from agentguard.model import Approval


@pytest.fixture(name="guard")
def guard_of_a_test() -> Iterator[Guard]:
    """A guard of its own."""
    guard = Guard("memory://", principal=Principal(agent="support", tenant="acme"))
    yield guard
    guard.close()


@tool_contract(effect="write", sensitive=["iban"])
@idempotent(key="pay:{to}")
@requires_approval(roles=["finance"], allow_edit=True)
def pay(to: str, amount: int, iban: str = "") -> str:
    """Pay *amount* to *to*."""
    return f"{to} {amount} {iban}"


def waiting(guard: Guard, to: str = "ann") -> Approval:
    """One payment that waits for a person."""
    with pytest.raises(ApprovalRequired) as stopped, guard.run(run_id=f"r-{to}"):
        pay(to=to, amount=100, iban="DE89")
    found: Approval = stopped.value.approval
    return guard.approvals.show(found.id)


def yes(approval: Approval, **more: Any) -> dict[str, Any]:
    """What a person answers who approves."""
    asked = question(approval)["resume"]
    return {**asked, "decision": "approve", "by": "dana", "roles": ["finance"], **more}


def test_the_question_is_plain_json_without_sensitive_arguments(guard: Guard) -> None:
    """Whoever is asked sees the call and its rule, and nothing that the tool declared sensitive."""
    asked = json.loads(json.dumps(question(waiting(guard))))
    assert asked["arguments"] == {"to": "ann", "amount": 100, "iban": "[hidden]"}
    assert (asked["tool"], asked["roles"], asked["quorum"]) == ("pay", ["finance"], 1)
    assert "DE89" not in json.dumps(asked)


def test_the_question_says_how_to_answer_without_naming_a_runtime(guard: Guard) -> None:
    """The fields to fill in and the command line are two ways; an adapter may name its own."""
    approval = waiting(guard)
    assert question(approval)["how"] == (
        "Answer with the fields of `resume`, or: agentguard approvals approve"
        f" {approval.id} --by NAME, and run this again."
    )
    assert question(approval, how="Send an event.")["how"] == "Send an event."


def test_the_question_tells_a_problem_only_if_there_was_one(guard: Guard) -> None:
    """A first question has no problem; a repeated one says why the last answer did not count."""
    approval = waiting(guard)
    assert "problem" not in question(approval)
    assert question(approval, "a decision must say by")["problem"] == "a decision must say by"


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ({"approval_id": "a", "decision": "approve"}, True),
        ([{"approval_id": "a", "decision": "x"}, {"approval_id": "b", "decision": "y"}], True),
        ([{"approval_id": "a", "decision": "x"}, "yes"], False),
        ({"decision": "approve"}, False),
        ([], False),
        ("yes", False),
        (True, False),
        (None, False),
    ],
)
def test_a_decision_names_its_approval(value: Any, *, is_one: bool) -> None:
    """Only what says which approval it means, and what was decided, is a decision."""
    assert is_decision(value) is is_one


def test_what_people_decided_is_in_the_store(guard: Guard) -> None:
    """Several decisions may come together; each is taken for the call that it names."""
    ann, bob = waiting(guard, "ann"), waiting(guard, "bob")
    no = yes(bob, decision="reject", reason="too much")
    assert hand_over(guard, [no, yes(ann)]) == {}
    assert guard.approvals.show(ann.id).status == "approved"
    assert guard.approvals.show(bob.id).status == "rejected"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"by": ""}, "a decision must say by"),
        ({"by": "support"}, "support"),
        ({"roles": ["sales"]}, "role finance"),
        ({"roles": "finance"}, "roles in a decision must be a list"),
        ({"decision": "maybe"}, "maybe"),
        ({"decision": 1}, "decision in a decision must be a str"),
        ({"generation": 7}, "was edited meanwhile"),
        ({"amount": 1}, "a decision has no field 'amount'"),
    ],
)
def test_a_bad_decision_is_refused_with_its_reason_and_the_others_count(
    guard: Guard, more: dict[str, Any], problem: str
) -> None:
    """Wrong people and wrong words decide nothing; what else came with them is decided."""
    ann, bob = waiting(guard, "ann"), waiting(guard, "bob")
    refused = hand_over(guard, [yes(ann, **more), yes(bob)])
    assert problem in refused.pop(ann.id)
    assert refused == {}
    assert guard.approvals.show(ann.id).status == "pending"
    assert guard.approvals.show(bob.id).status == "approved"


def test_an_approval_that_does_not_exist_is_refused_under_its_name(guard: Guard) -> None:
    """Nothing is raised for an id that nobody knows."""
    refused = hand_over(guard, {"approval_id": "apr_none", "decision": "approve", "by": "dana"})
    assert refused == {"apr_none": "there is no approval 'apr_none' in this store"}


@pytest.mark.parametrize("value", ["yes", True, None, [], {"approve": True}])
def test_what_names_no_approval_decides_nothing(guard: Guard, value: Any) -> None:
    """Being woken up is never taken for a yes."""
    approval = waiting(guard)
    assert hand_over(guard, value) == {
        "": "The answer named no approval, so nobody was taken to have decided."
    }
    assert guard.approvals.show(approval.id).status == "pending"


def test_an_answer_without_a_generation_is_for_the_call_as_it_was_first_asked(guard: Guard) -> None:
    """Who did not say which edit they saw has seen none."""
    approval = waiting(guard)
    edit = yes(approval, decision="edit", by="erin", edits={"amount": 70})
    assert hand_over(guard, edit) == {}
    blind = yes(approval)
    del blind["generation"]
    assert "was edited meanwhile" in hand_over(guard, blind)[approval.id]


def test_decisions_do_not_cross_tenants(guard: Guard) -> None:
    """An answer that reaches a run decides only on calls of that run's tenant."""
    approval = waiting(guard)
    with guard.run(principal=Principal(agent="support", tenant="other")):
        assert approval.id in hand_over(guard, yes(approval))
    assert approval.id in hand_over(guard, yes(approval), tenant="other")
    assert hand_over(guard, yes(approval), tenant="acme") == {}


def test_the_note_says_what_a_person_changed() -> None:
    """The model reads the new values, not that it was wrong."""
    assert edits_note({"amount": 70}) == (
        'A person changed the arguments before this ran: {"amount": 70}'
    )
