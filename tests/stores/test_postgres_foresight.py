"""Questions asked together get the answers that they would get one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from agentguard.ledger import effects, lifecycle, settling
from agentguard.ledger.values import (
    Intent,
    Opening,
    Refused,
    Reservation,
    RunRef,
    Settlement,
    Started,
)
from agentguard.model import EffectState, Limits
from agentguard.protocols import Asked, Store
from agentguard.stores._pg_foresight import Foresight, locking
from agentguard.stores._pg_wire import Reply
from agentguard.stores.postgres import PostgresStore
from agentguard.stores.sqlite import SqliteStore
from agentguard.testing import FakeClock
from agentguard.testing.stores.crowd import Gate, deliver
from agentguard.testing.stores.processes import PATIENCE

Step = tuple[Callable[..., Any], Any]
RUNS, KEYS = ("a", "b", "c"), ("k1", "k2", "k3", "k4")
SEQUENCES = 40


@pytest.fixture(name="clock")
def a_clock() -> FakeClock:
    """One time for all stores."""
    return FakeClock()


@pytest.fixture(name="store")
def a_store(postgres_url: str, clock: FakeClock) -> Iterator[PostgresStore]:
    """A store on PostgreSQL."""
    with closing(PostgresStore(postgres_url, clock=clock)) as store:
        yield store


def ref(tenant: str, run: str) -> RunRef:
    """Say who acts."""
    return RunRef(tenant, run, "agent:bot")


def enter(store: Store, tenant: str) -> None:
    """Begin all runs."""
    for run in RUNS:
        opening = Opening(ref(tenant, run), "w", "bot", None, Limits(), "policy-1", None, {})
        store.transact(lifecycle.open_run, opening)


def start(tenant: str, run: str, key: str, payload: str = "p", limit: int | None = None) -> Step:
    """Return the start of an effect, under a budget that all of them share."""
    return effects.begin, Intent(
        run=ref(tenant, run), key=key, scope="tenant", tool="pay", effect="write",
        contract_version="1", policy_version="policy-1", payload_hash=payload,
        claim_id=f"{run}-{key}", rule="", arguments={"to": key}, cost=3,
        reservations=(Reservation("tool:pay", "day", "pay", limit, None, 3),), agent="bot",
        workflow="w",
    )  # fmt: skip


def end(tenant: str, run: str, key: str, fence: int, state: EffectState) -> Step:
    """Return the end of an effect."""
    doubt = "unclear" if state is EffectState.IN_DOUBT else None
    return settling.settle, Settlement(
        ref(tenant, run), key, fence, 1, state, {}, doubt_reason=doubt
    )


def together(store: Store, steps: list[Step]) -> list[Any]:
    """Let all of *steps* come while one transaction is under way; return their answers."""
    gate, ends = Gate(), [Future[Any]() for _ in steps]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.transact, gate.verb)
        gate.wait()
        for answer, (verb, argument) in zip(ends, steps, strict=True):
            store.submit(deliver(answer), verb, argument)
        gate.open()
        first.result(PATIENCE)
    return [answer.result(PATIENCE) for answer in ends]


def one_by_one(store: Store, steps: list[Step]) -> list[Any]:
    """Run *steps* each in a transaction of its own; return their answers."""
    return [store.transact(verb, argument) for verb, argument in steps]


def chosen(tenant: str, dice: random.Random) -> list[Step]:
    """Return starts and ends that get in each other's way."""
    steps = []
    for _ in range(dice.randint(2, 12)):
        run, key = dice.choice(RUNS), dice.choice(KEYS)
        if dice.random() < 0.6:
            steps.append(start(tenant, run, key, dice.choice("ppq"), dice.choice((None, 3))))
        else:
            states = [EffectState.SUCCEEDED, EffectState.FAILED_RETRYABLE, EffectState.IN_DOUBT]
            steps.append(end(tenant, run, key, dice.choice((1, 1, 2)), dice.choice(states)))
    return steps


def said(answers: list[Any]) -> list[str]:
    """Return what callers were told, without what is a matter of chance."""
    return [
        f"{type(answer[0]).__name__} {getattr(answer[0], 'step', '')} {answer[1]}"
        if isinstance(answer, tuple)
        else str(answer)
        for answer in answers
    ]


TABLES = (
    "SELECT key, state, run_id, step, fence, attempt, cost FROM effects WHERE tenant = ? ORDER BY key",
    "SELECT run_id, steps, tool_calls, spent, held, head_seq FROM runs WHERE tenant = ? ORDER BY run_id",
    "SELECT name, calls, spent, held FROM budgets WHERE tenant = ? ORDER BY name",
    "SELECT run_id, seq, step, kind FROM events WHERE tenant = ? ORDER BY run_id, seq",
)  # fmt: skip


def left(store: Store, tenant: str) -> list[list[Any]]:
    """Return what is in the store afterwards."""
    return [list(store.read(lambda tx, sql=sql: list(tx.rows(sql, (tenant,))))) for sql in TABLES]


def test_a_batch_does_what_its_verbs_do_one_by_one(store: PostgresStore, clock: FakeClock) -> None:
    """Whatever a batch is made of, its verbs say and leave what they would say and leave alone."""
    with closing(SqliteStore(":memory:", clock=clock)) as alone:
        for seed in range(SEQUENCES):
            tenant = f"t{seed}"
            for each in (alone, store):
                enter(each, tenant)
            steps = chosen(tenant, random.Random(seed))
            expected = said(one_by_one(alone, steps))
            assert said(together(store, steps)) == expected, f"seed {seed}"
            assert left(store, tenant) == left(alone, tenant), f"seed {seed}"


def test_a_doubt_that_a_verb_finds_stops_the_next_one_in_its_batch(
    postgres_url: str, store: PostgresStore, clock: FakeClock
) -> None:
    """A run that another verb of the batch puts in doubt starts nothing, though it was asked before."""
    enter(store, "t")
    vanished = PostgresStore(postgres_url, clock=clock)
    assert isinstance(vanished.transact(*start("t", "b", "k1"))[0], Started)
    clock.advance(seconds=60)
    found, stopped = together(store, [start("t", "a", "k1"), start("t", "b", "k2")])
    assert type(found[0]).__name__ == "Doubt"
    assert isinstance(stopped[0], Refused)
    assert "it is not known whether" in stopped[0].error.message
    vanished.close()


def test_a_batch_of_runs_asks_once(store: PostgresStore) -> None:
    """Twenty starts in twenty runs wait for the server as often as one start does."""
    runs = [f"r{number}" for number in range(20)]
    for run in runs:
        opening = Opening(ref("t", run), "w", "bot", None, Limits(), "policy-1", None, {})
        store.transact(lifecycle.open_run, opening)
    wire = store._commits.wire()
    before = wire.trips
    answers = together(store, [(effects.begin, without_budget(run)) for run in runs])
    assert {type(answer[0]) for answer in answers} == {Started}
    assert wire.trips - before == 4  # two for what held them up, two for all of them


def without_budget(run: str) -> Intent:
    """Return a start in a run of its own, with nothing that it shares."""
    intent: Intent = start("t", run, f"key-{run}")[1]
    intent.reservations = ()
    return intent


class Asking:
    """Notes what is asked; every answer is its number."""

    def __init__(self, *verbs: list[Asked] | None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.foresight = Foresight(self._send)
        self.foresight.begin(verbs)

    def turn(self, number: int) -> None:
        """Let a verb have its turn."""
        self.foresight.turn(number, lambda name: self.asked.append((name, ())))

    def _send(self, sql: str, values: Any) -> Reply:
        self.asked.append((sql, values))
        return Reply(str(len(self.asked)))

    def take(self, question: Asked) -> str | None:
        """Return the answer that is there, if one is."""
        sql = locking(question.what) if question.how == "lock" else question.what
        found = self.foresight.take(sql, question.values)
        return found.parses if found else None


LOCK = Asked("lock", "SELECT a FROM runs WHERE id = ?", ("r",), early=True)
OTHER = Asked("lock", "SELECT a FROM effects WHERE id = ?", ("k",), early=True)
UNDER = Asked("row", "SELECT b FROM effects WHERE run = ?", ("r",), early=True, under=LOCK)
SHARED = Asked("row", "SELECT c FROM switches", (), early=True)
LATE = Asked("lock", "SELECT d FROM budgets WHERE id = ?", ("d",))


def test_locks_are_asked_for_in_one_order_before_what_is_read() -> None:
    """Whatever order the verbs have, runs are locked, then effects, and then the rest is read."""
    asking = Asking([UNDER, OTHER, LOCK, SHARED, LATE], [Asked("gate", "g", early=True), SHARED])
    asking.turn(0)
    assert [sql.split()[3] if " " in sql else sql for sql, _ in asking.asked] == [
        "runs", "effects", "effects", "switches", "g", "budgets",
    ]  # fmt: skip


def test_an_answer_is_given_as_long_as_it_is_true() -> None:
    """A lock once, what is read under it to its holder, what is under none until it is written."""
    asking = Asking([LOCK, UNDER, SHARED], [LOCK, UNDER, SHARED])
    asking.turn(0)
    assert [asking.take(q) for q in (LOCK, LOCK, UNDER, UNDER, SHARED, SHARED)] == [
        "1", None, "2", None, "3", "3",
    ]  # fmt: skip
    asking.turn(1)
    assert [asking.take(q) for q in (LOCK, UNDER, SHARED)] == ["4", "5", "3"]
    asking.foresight.wrote("UPDATE switches SET a = 1")
    assert asking.take(SHARED) is None


def test_what_a_verb_leaves_unasked_is_nobody_elses() -> None:
    """A later verb does not get what an earlier one was going to read and did not."""
    asking = Asking([LOCK, UNDER], [LOCK, UNDER])
    asking.turn(0)
    asking.turn(1)
    assert (asking.take(LOCK), asking.take(UNDER)) == ("3", "4")


def test_what_a_verb_writes_it_does_not_read_from_before() -> None:
    """A table that was written is asked again by who wrote it."""
    asking = Asking([LOCK, UNDER, OTHER])
    asking.turn(0)
    asking.foresight.wrote("INSERT INTO effects VALUES (1)")
    assert [asking.take(q) for q in (LOCK, UNDER, OTHER)] == ["1", None, None]


def test_nothing_is_asked_across_a_verb_that_does_not_say_what_it_asks() -> None:
    """Such a verb may change anything: what comes after it is asked after it."""
    asking = Asking([LOCK], None, [OTHER, SHARED])
    asking.turn(0)
    assert len(asking.asked) == 1
    asking.turn(1)
    assert (asking.take(LOCK), len(asking.asked)) == (None, 1)
    asking.turn(2)
    assert (asking.take(OTHER), asking.take(SHARED)) == ("2", "3")
