"""The run record: a chain nobody can change unseen, and runs and tenants that do not mix."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agentguard import (
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    ContractViolation,
    DecisionRefused,
    Guard,
    GuardError,
    IdempotencyConflict,
    NoEffect,
    Principal,
    budget,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.canonical import canonical, jsonable
from agentguard.ledger import queries
from agentguard.protocols import Tx
from agentguard.testing import FakeClock

IBAN = "DE44500105175407324931"
ZERO = bytes(32).hex()


@tool_contract(effect="write")
@idempotent(key="pay:{to}")
@budget(max_calls=5, cost="0.10")
def pay(to: str, amount: int = 1) -> str:
    """Pay somebody."""
    return f"paid {amount} to {to}"


@tool_contract(effect="read")
def look(to: str) -> str:
    """Look somebody up."""
    return f"{to} is fine"


@tool_contract(effect="write")
@idempotent(key="close:{account}")
@requires_approval()
def close(account: str) -> str:
    """Close an account."""
    return f"closed {account}"


@pytest.fixture(name="path")
def path_of_the_store(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "a.db"


@pytest.fixture(name="clock")
def clock_that_stands() -> FakeClock:
    """The store's clock."""
    return FakeClock()


@pytest.fixture(name="guard")
def guard_on_a_file(path: Path, clock: FakeClock) -> Iterator[Guard]:
    """A guard on a store file."""
    guard = Guard(f"sqlite:///{path}", clock=clock)
    yield guard
    guard.close()


def filled(guard: Guard, run_id: str = "r", **who: Any) -> None:
    """Leave a run with reads, writes and a refusal in the record."""
    with guard.run("w", run_id=run_id, principal=Principal(**who)):
        look("ada")
        pay("ada")
        look("bob")
        with pytest.raises(IdempotencyConflict):
            pay("ada", 2)
        pay("bob")


# The chain.


def test_anybody_can_check_a_chain(guard: Guard) -> None:
    """An event's hash is SHA-256 over 0x00 and its RFC 8785 JSON, with the hash before it."""
    filled(guard, tenant="acme")
    rows = guard.store.read(
        lambda tx: list(tx.rows("SELECT seq, at, step, kind, actor, data, hash FROM events"))
    )
    prev = ZERO
    for seq, at, step, kind, actor, data, digest in rows:
        event = {
            "actor": actor, "at": at, "data": json.loads(data), "kind": kind, "prev": prev,
            "run_id": "r", "seq": seq, "step": step, "tenant": "acme",
        }  # fmt: skip
        assert hashlib.sha256(b"\x00" + rfc8785.dumps(event)).digest() == digest
        prev = digest.hex()


def test_events_name_the_hash_before_them(guard: Guard) -> None:
    """Each event carries the hash of the one before it, the first one zeros."""
    filled(guard)
    events = guard.runs.events("r")
    assert [event.prev for event in events] == [ZERO, *[event.hash for event in events[:-1]]]
    assert guard.runs.events("r", after=3) == events[3:]


def test_each_run_has_a_chain_of_its_own(guard: Guard) -> None:
    """Every run's events are numbered from 1 without a gap, whatever other runs do meanwhile."""
    with guard.run("w", run_id="a"):
        pay("x")
        with guard.run("w", run_id="b"):
            pay("y")
        look("x")
    for run in guard.runs.list():
        events = guard.runs.events(run.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert guard.runs.verify(run.id) is None


SWAP = "UPDATE events SET seq = CASE seq WHEN 3 THEN 4 ELSE 3 END + 1000 WHERE seq IN (3, 4)"
BACK = "UPDATE events SET seq = seq - 1000 WHERE seq > 1000"
RENUMBER = "UPDATE events SET seq = -seq WHERE seq > 3"
INSERT = (
    "INSERT INTO events SELECT tenant, run_id, 4, at, step, kind, actor, data, hash, salt, body"
    " FROM events WHERE seq = 3"
)
TAMPERED: dict[str, tuple[list[str], str]] = {
    "the facts edited": (
        ["UPDATE events SET data = replace(data, '\"w\"', '\"v\"') WHERE seq = 1"],
        "event 1 of run r was changed",
    ),
    "the actor edited": (
        ["UPDATE events SET actor = 'person:eve' WHERE seq = 3"],
        "event 3 of run r was changed",
    ),
    "the time edited": (["UPDATE events SET at = at + 1 WHERE seq = 2"], "event 2 of run r was"),
    "deleted in the middle": (["DELETE FROM events WHERE seq = 3"], "event 3 of run r is missing"),
    "deleted and renumbered": (
        ["DELETE FROM events WHERE seq = 3", RENUMBER,
         "UPDATE events SET seq = -seq - 1 WHERE seq < 0"],
        "event 3 of run r was changed",
    ),
    "two swapped": ([SWAP, BACK], "event 3 of run r was changed"),
    "one inserted": (
        [RENUMBER, INSERT, "UPDATE events SET seq = 1 - seq WHERE seq < 0"],
        "event 4 of run r was changed",
    ),
    "its content changed": (
        ["UPDATE events SET body = replace(body, 'ada', 'eve')"],
        "the content of event 2 of run r was changed",
    ),
    "a content added": (
        ["UPDATE events SET (salt, body) = (SELECT salt, body FROM events WHERE seq = 2) WHERE seq = 1"],
        "the content of event 1 of run r was changed",
    ),
    "the tail cut": (
        ["DELETE FROM events WHERE seq > 5"], "events on record but 5 are there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_found(guard: Guard, path: Path, how: str) -> None:
    """Whoever changes a store's events behind agentguard's back is found out, with the place."""
    filled(guard)
    assert guard.runs.verify("r") is None
    statements, sentence = TAMPERED[how]
    tamper(path, statements)
    found = guard.runs.verify("r")
    assert found is not None
    assert sentence in found


def tamper(path: Path, statements: list[str]) -> None:
    """Change the file as somebody with an SQLite shell would."""
    with sqlite3.connect(path) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
    connection.close()


def test_an_erased_content_leaves_the_chain_whole(guard: Guard, path: Path) -> None:
    """Personal values can be erased, and the events that were bound to them still verify."""
    filled(guard)
    tamper(path, ["UPDATE events SET salt = NULL, body = NULL"])
    assert guard.runs.verify("r") is None
    assert all(event.content is None for event in guard.runs.events("r"))


def test_a_chain_written_anew_no_longer_fits_the_leaves(guard: Guard, path: Path) -> None:
    """Who recomputes a whole chain fools the chain alone, but not the leaves of its tenant."""
    filled(guard)
    kept = leaves(guard, "default")
    rewrite(path)
    assert guard.runs.verify("r") is None
    assert kept == leaves(guard, "default")
    assert kept != expected_leaves(guard, "default")


def rewrite(path: Path) -> None:
    """Change an event and compute every hash after it anew, and the head."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE events SET actor = 'person:eve' WHERE seq = 2")
    rows = list(connection.execute("SELECT seq, at, step, kind, actor, data FROM events"))
    prev = bytes(32)
    for seq, at, step, kind, actor, data in rows:
        event = {
            "actor": actor, "at": at, "data": json.loads(data), "kind": kind, "prev": prev.hex(),
            "run_id": "r", "seq": seq, "step": step, "tenant": "default",
        }  # fmt: skip
        prev = hashlib.sha256(b"\x00" + rfc8785.dumps(event)).digest()
        connection.execute("UPDATE events SET hash = ? WHERE seq = ?", (prev, seq))
    connection.execute("UPDATE runs SET head_hash = ?", (prev,))
    connection.close()


# The leaves.


def leaves(guard: Guard, tenant: str) -> list[Any]:
    """Return a tenant's leaves: run, event and hash."""
    sql = "SELECT run_id, seq, hash FROM leaves WHERE tenant = ? ORDER BY run_id, seq"
    return list(guard.store.read(lambda tx: list(tx.rows(sql, (tenant,)))))


def expected_leaves(guard: Guard, tenant: str) -> list[Any]:
    """Return what the leaves must be by the events that are there."""
    found = []
    for run_id, seq, _ in leaves(guard, tenant):
        head = guard.runs.events(run_id, tenant=tenant)[seq - 1].hash
        body = rfc8785.dumps({"head": head, "run_id": run_id, "seq": seq})
        found.append((run_id, seq, hashlib.sha256(b"\x00" + body).digest()))
    return found


def test_a_tenants_leaves_are_the_heads_of_its_runs(guard: Guard) -> None:
    """Every start and end of a part of a run is a leaf of its tenant's log."""
    filled(guard, "a", tenant="acme")
    filled(guard, "x", tenant="other")
    filled(guard, "b", tenant="acme")
    assert [run_id for run_id, *_ in leaves(guard, "acme")] == ["a", "a", "b", "b"]
    assert leaves(guard, "acme") == expected_leaves(guard, "acme")
    assert leaves(guard, "other") == expected_leaves(guard, "other")


# Look-ups.

LOOK_UPS: dict[str, Callable[[Tx], object]] = {
    "an effect by its id": lambda tx: queries.effect(tx, None, "k"),
    "a run by its id": lambda tx: queries.run(tx, None, "r"),
    "the effects of a run": lambda tx: queries.effects(tx, None, None, "r", 10),
    "the newest runs": lambda tx: queries.runs(tx, None, 10),
    "an approval by its id": lambda tx: queries.approval(tx, None, "a"),
}


class Planned:
    """Asks SQLite how it would find the answer, and finds nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.plans = connection, list[str]()

    def rows(self, sql: str, values: Any = ()) -> list[Any]:
        """Take the plan."""
        plan = self.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
        self.plans += [row[3] for row in plan]
        return []


@pytest.mark.parametrize("what", LOOK_UPS)
def test_no_look_up_reads_a_whole_table(guard: Guard, path: Path, what: str) -> None:
    """Whoever asks without naming a tenant is answered by the keys, however large the store."""
    filled(guard)
    with closing(sqlite3.connect(path)) as connection:
        planned = Planned(connection)
        LOOK_UPS[what](cast("Tx", planned))
    scanned = [step for step in planned.plans if step.startswith("SCAN")]
    assert planned.plans
    assert [step for step in scanned if not step.startswith("SCAN tenants")] == []


# Canonical JSON.

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | KEYS
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(VALUES)
def test_canonical_json_is_rfc_8785(value: Any) -> None:
    """For every JSON value, the fast form gives the bytes of the reference library."""
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES)
def test_plain_values_are_their_own_json_form(value: Any) -> None:
    """What is JSON already is not changed on its way into a hash."""
    assert canonical(jsonable(value)) == rfc8785.dumps(value)


# What must not be in the record.


@tool_contract(effect="write", sensitive=["iban"])
@idempotent(key="transfer:{to}")
def transfer(to: str, iban: str) -> str:
    """Transfer something; each of these ends in its own way."""
    endings: dict[str, Callable[[], str]] = {
        "echo": lambda: f"sent to {iban}",
        "error": lambda: str(1 / 0),
        "no effect": lambda: fail(f"no such account: {iban}"),
        "doubt": lambda: doubt(iban),
    }
    return endings.get(to, lambda: "sent")()


def fail(message: str) -> str:
    """Say that nothing happened."""
    raise NoEffect(message)


def doubt(iban: str) -> str:
    """Break in a way that tells nothing."""
    raise RuntimeError({"account": iban})


@tool_contract(effect="read", sensitive=["iban"])
def balance(iban: str) -> str:
    """Read an account."""
    return f"{iban}: 12"


@pytest.mark.parametrize("how", ["sent", "echo", "error", "no effect", "doubt"])
def test_a_sensitive_argument_is_nowhere_in_the_store(
    guard: Guard, tmp_path: Path, how: str
) -> None:
    """However the call ends, no byte of the store's files holds a declared sensitive argument."""
    with guard.run("w", run_id="r"):
        balance(IBAN)
        ended = attempt(lambda: transfer(how, IBAN))
        look(f"what about {IBAN}?")
    guard.store.close()
    assert ended in (None, "ZeroDivisionError", "NoEffect", "EffectInDoubt")
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or IBAN.encode() not in file.read_bytes()


def attempt(call: Callable[[], Any]) -> str | None:
    """Return the name of what *call* raises."""
    try:
        call()
    except (GuardError, NoEffect, ZeroDivisionError) as error:
        return type(error).__name__
    return None


def test_a_refused_sensitive_argument_is_not_in_the_store(guard: Guard, tmp_path: Path) -> None:
    """An argument that does not fit is not quoted in the record when it is sensitive."""
    secret: Any = [IBAN]
    with guard.run("w"), pytest.raises(ContractViolation) as refused:
        transfer("ada", secret)
    guard.store.close()
    assert IBAN not in str(refused.value)
    assert not any(IBAN.encode() in f.read_bytes() for f in tmp_path.iterdir() if f.is_file())


def test_a_hidden_argument_is_shown_as_hidden(guard: Guard) -> None:
    """The record says that there was a value, beside the arguments that may be seen."""
    with guard.run("w", run_id="r"):
        transfer("ada", IBAN)
    shown = [content(e)["arguments"] for e in guard.runs.events("r") if "arguments" in content(e)]
    assert shown == [{"to": "ada", "iban": "[hidden]"}]


def content(event: Any) -> Any:
    """Return an event's content, or nothing."""
    return event.content or {}


# Steps, and going on.


def test_steps_are_numbered_from_one_without_a_gap(guard: Guard) -> None:
    """Every call takes one step, whether it reads, writes, is refused or is served again."""
    with guard.run("w", run_id="r") as run:
        look("ada")
        pay("ada")
        pay("ada")
        with pytest.raises(ContractViolation):
            pay("ada", "much")  # type: ignore[arg-type]
        with pytest.raises(ApprovalRequired):
            close("ada")
    steps = [event.step for event in guard.runs.events("r") if event.step]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5]
    assert run.usage.steps == guard.runs.show("r").steps == 5


def test_a_resumed_run_goes_on(guard: Guard) -> None:
    """Entering a run's id again goes on with its steps, its budget and its effects."""
    with guard.run("w", run_id="r", max_steps=4) as run:
        pay("ada")
        look("ada")
    with guard.run("w", run_id="r") as run:
        assert run.part == 2
        assert pay("ada") == "paid 1 to ada"
        look("bob")
        assert (run.usage.steps, run.limits.max_steps) == (3, 4)
        look("cleo")
        with pytest.raises(BudgetExceeded):
            look("dan")
    assert len(guard.effects.list()) == 1
    assert guard.runs.verify("r") is None


def test_a_resumed_run_keeps_its_money(guard: Guard) -> None:
    """What was spent in an earlier part counts in the next one."""
    for to, fits in (("a", True), ("b", True), ("c", False)):
        with guard.run("w", run_id="r", max_spend_usd="0.25"):
            if fits:
                pay(to)
            else:
                with pytest.raises(BudgetExceeded):
                    pay(to)
    assert str(guard.runs.show("r").spent_usd) == "0.20"


def test_a_run_of_another_workflow_is_not_entered(guard: Guard) -> None:
    """A run's id belongs to its workflow; entering it as another one changes nothing."""
    filled(guard)
    before = guard.runs.events("r")
    with pytest.raises(ConfigurationError, match="belongs to the workflow 'w'"):
        guard.run("other", run_id="r").__enter__()
    assert guard.runs.events("r") == before


def test_waiting_for_people_is_no_time_of_the_run(guard: Guard, clock: FakeClock) -> None:
    """A night between two parts does not use up max_seconds, nor does a decision in that night."""
    with guard.run("w", run_id="r", max_seconds=60), pytest.raises(ApprovalRequired):
        close("ada")
    clock.advance(hours=6)
    guard.approvals.decide(guard.approvals.list()[0].id, "approve", by="dana")
    clock.advance(hours=6)
    with guard.run("w", run_id="r"):
        assert close("ada") == "closed ada"


def test_a_decision_is_no_activity_of_a_killed_run(guard: Guard, clock: FakeClock) -> None:
    """A run whose process is lost is not charged for the time until somebody decides."""
    lost = guard.run("w", run_id="r", max_seconds=60)
    lost.__enter__()
    with pytest.raises(ApprovalRequired):
        close("ada")
    clock.advance(hours=12)
    guard.approvals.decide(guard.approvals.list()[0].id, "approve", by="dana")
    with guard.run("w", run_id="r"):
        assert close("ada") == "closed ada"
    lost._deactivate().end()


# Side by side.


async def test_runs_side_by_side_do_not_mix(guard: Guard) -> None:
    """What tasks do in two runs at once is written into the run each of them is in."""

    @tool_contract(effect="write")
    @idempotent(key="note:{text}")
    async def note(text: str) -> str:
        await asyncio.sleep(0)
        return current_run().id

    async def work(run_id: str) -> list[str]:
        async with guard.run("w", run_id=run_id):
            return [await note(f"{run_id}{number}") for number in range(5)]

    assert list(await asyncio.gather(work("a"), work("b"))) == [["a"] * 5, ["b"] * 5]
    for run_id in ("a", "b"):
        effects = guard.effects.list(run_id=run_id)
        texts = {content(e)["arguments"]["text"] for e in started(guard, run_id)}
        assert len(effects) == 5
        assert texts == {f"{run_id}{number}" for number in range(5)}


def started(guard: Guard, run_id: str) -> list[Any]:
    """Return the events of a run's starts."""
    return [e for e in guard.runs.events(run_id) if e.kind == "step.started"]


def test_tenants_have_effects_of_their_own(guard: Guard) -> None:
    """The same key, run id and arguments in two tenants are two effects in two runs."""
    for tenant in ("acme", "other"):
        filled(guard, tenant=tenant)
    acme, other = (guard.effects.list(tenant=tenant) for tenant in ("acme", "other"))
    assert len(acme) == len(other) == 2
    assert not {e.id for e in acme} & {e.id for e in other}
    assert not {e.payload_hash for e in acme} & {e.payload_hash for e in other}
    with pytest.raises(DecisionRefused, match="more than one run"):
        guard.runs.show("r")


def test_a_tenant_does_not_see_another(guard: Guard) -> None:
    """Lists, look-ups, rulings and decisions in one tenant know nothing of another's."""
    with guard.run("w", run_id="r", principal=Principal(tenant="acme")):
        pay("ada")
        with pytest.raises(ApprovalRequired) as asked:
            close("ada")
    effect = guard.effects.list(tenant="acme")[0]
    assert guard.runs.list(tenant="other") == []
    assert guard.effects.list(tenant="other") == []
    assert guard.approvals.list(tenant="other") == []
    for hidden in (
        lambda: guard.runs.show("r", tenant="other"),
        lambda: guard.effects.show(effect.id, tenant="other"),
        lambda: guard.approvals.show(asked.value.approval.id, tenant="other"),
        lambda: guard.approvals.decide(
            asked.value.approval.id, "approve", by="dana", tenant="other"
        ),
    ):
        with pytest.raises(DecisionRefused, match="there is no"):
            hidden()


def test_every_event_names_its_actor(guard: Guard) -> None:
    """Agents, people and agentguard's own doings are told apart in every event."""
    with guard.run("w", run_id="r", principal=Principal(agent="support")):
        look("ada")
        pay("ada")
        with pytest.raises(ApprovalRequired) as asked:
            close("ada")
    guard.approvals.decide(asked.value.approval.id, "reject", by="dana", reason="no")
    guard.runs.cancel("r", by="erin", reason="enough")
    actors = [(event.kind, event.actor) for event in guard.runs.events("r")]
    assert all(re.fullmatch(r"(agent|person|system):\S+", actor) for _, actor in actors)
    assert [actor for kind, actor in actors if kind == "approval.decided"] == ["person:dana"]
    assert actors[-1] == ("run.finished", "person:erin")
    assert {actor for _, actor in actors} == {"agent:support", "person:dana", "person:erin"}
