"""What is promised of budgets, rates, switches, approvals and the record, by many callers at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ....ledger import effects, queries, settling, switches
from ....ledger.decisions import Ruling, decide
from ....ledger.lifecycle import close_run, flush
from ....ledger.values import (
    Ask,
    Draft,
    Pending,
    Rate,
    Refused,
    Reservation,
    RunRef,
    Settlement,
    Started,
    Waiting,
)
from ....model import Approval, EffectState, Limits
from ..crowd import together
from ..ledger import enter, intent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....ledger.values import Answer
    from ....protocols import Store
    from ...clock import FakeClock
    from ..processes import Child

CALLERS = 8


def run_of(number: object = "", tenant: str = "acme") -> RunRef:
    """Name a run, and who acts in it."""
    return RunRef(tenant, f"r{number}", "agent:bot")


def begin(store: Store, run: RunRef, key: str, **more: Any) -> Answer:
    """Ask to start a write."""
    return store.transact(effects.begin, intent(run, key, **more))[0]


def settle(store: Store, run: RunRef, key: str, fence: int = 1) -> bool:
    """Write down that it happened."""
    end = Settlement(run, key, fence, 1, EffectState.SUCCEEDED, {})
    return store.transact(settling.settle, end).written


def started(answers: list[Answer]) -> int:
    """Count the bodies that may run."""
    return sum(isinstance(answer, Started) for answer in answers)


def whole(store: Store, *runs: RunRef) -> bool:
    """Return whether the chains of *runs* are whole; say what is not."""
    broken = [store.read(queries.broken_link, run.tenant, run.run_id) for run in runs]
    assert broken == [None] * len(runs)
    return True


class Promises:
    """Limits that hold, votes that count once, chains that are whole."""

    def test_of_many_callers_of_one_key_one_starts(self, stores: list[Store]) -> None:
        """Whoever asks at the same moment, in whatever run, one body starts for a key."""
        runs = [run_of(number) for number in range(CALLERS)]
        for run in runs:
            enter(stores[0], run)
        for key in ("k1", "k2", "k3"):
            answers = together(
                partial(begin, stores[number % len(stores)], run, key)
                for number, run in enumerate(runs)
            )
            assert started(answers) == 1, answers
        assert whole(stores[0], *runs)

    def test_of_processes_that_want_one_key_one_starts(
        self, store: Store, fork: Callable[[Callable[[Store, Any], object]], Child]
    ) -> None:
        """Several processes that do the same things at once start each of them once."""

        def work(number: int, mine: Store, say: Callable[[Any], None]) -> None:
            run = run_of(number)
            enter(mine, run)
            for key in range(10):
                answer = begin(mine, run, f"{key}")
                if isinstance(answer, Started):
                    settle(mine, run, f"{key}")
                    say(key)
            say(None)

        children = [fork(partial(work, number)) for number in range(3)]
        keys: list[int] = []
        for child in children:
            while (key := child.hear()) is not None:
                keys.append(key)
        assert sorted(keys) == list(range(10))
        assert whole(store, *(run_of(number) for number in range(3)))

    def test_a_budget_is_never_over(self, stores: list[Store]) -> None:
        """Runs that share a budget of five calls start five, however many ask at once."""
        held = (Reservation("tool:pay", "ever", "pay", 5, None, 1),)
        runs = [run_of(number) for number in range(CALLERS)]
        for run in runs:
            enter(stores[0], run)

        def caller(number: int) -> list[Answer]:
            store = stores[number % len(stores)]
            keys = [f"{number}.{turn}" for turn in range(3)]
            return [begin(store, runs[number], key, reservations=held) for key in keys]

        told = together(partial(caller, number) for number in range(CALLERS))
        answers = [answer for each in told for answer in each]
        refused = [answer.error.kind for answer in answers if isinstance(answer, Refused)]
        assert (started(answers), set(refused)) == (5, {"budget_exceeded"})
        row = stores[-1].read(lambda tx: tx.row("SELECT calls, spent, held FROM budgets"))
        assert row is not None
        assert tuple(row) == (5, 0, 5)

    def test_money_is_held_and_spent_to_the_last_nano(self, stores: list[Store]) -> None:
        """Concurrent starts and ends leave a budget that is the sum of what they have cost."""
        held = (Reservation("tool:pay", "ever", "pay", None, None, 11),)
        runs = [run_of(number) for number in range(CALLERS)]
        for run in runs:
            enter(stores[0], run)

        def caller(number: int) -> None:
            store = stores[number % len(stores)]
            for turn in range(4):
                begin(store, runs[number], f"{number}.{turn}", reservations=held)
                if turn % 2:
                    settle(store, runs[number], f"{number}.{turn}")

        together(partial(caller, number) for number in range(CALLERS))
        row = stores[-1].read(lambda tx: tx.row("SELECT calls, spent, held FROM budgets"))
        assert row is not None
        assert tuple(row) == (4 * CALLERS, 22 * CALLERS, 22 * CALLERS)
        assert whole(stores[0], *runs)

    def test_the_limits_of_a_run_hold_for_all_its_callers(self, stores: list[Store]) -> None:
        """Calls of one run, by threads and workers at once, stop at the run's own limit."""
        run, limits = run_of(), Limits(max_tool_calls=5)
        enter(stores[0], run, limits=limits)
        answers = together(
            partial(begin, stores[number % len(stores)], run, f"{number}", limits=limits)
            for number in range(12)
        )
        assert started(answers) == 5
        (info,) = stores[-1].read(queries.run, "acme", "r")
        assert info.tool_calls == 5
        assert whole(stores[0], run)

    def test_a_rate_is_never_over(self, stores: list[Store], clock: FakeClock) -> None:
        """Three a minute are three, for all callers together, and three more a minute later."""
        rate = Rate(20_000_000, 3, "3/minute")
        runs = [run_of(number) for number in range(CALLERS)]
        for run in runs:
            enter(stores[0], run)
        for turn in range(2):
            answers = together(
                partial(begin, stores[n % len(stores)], run, f"{turn}.{n}", rate=rate)
                for n, run in enumerate(runs)
            )
            refused = [answer.error.kind for answer in answers if isinstance(answer, Refused)]
            assert (started(answers), set(refused)) == (3, {"rate_limited"})
            clock.advance(60)

    def test_nothing_passes_a_switch_that_was_thrown(self, stores: list[Store]) -> None:
        """Once the throw of a kill switch has returned, no call that is made then starts."""
        runs = [run_of(number) for number in range(CALLERS)]
        for run in runs:
            enter(stores[0], run)
        for kind, name in (("tool", "pay"), ("agent", "bot"), ("tenant", "acme"), ("all", "")):
            stores[0].transact(switches.throw, kind, name, "dana", "stop")
            answers = together(
                partial(begin, stores[n % len(stores)], run, f"{kind}{n}")
                for n, run in enumerate(runs)
            )
            refused = [answer.error.kind for answer in answers if isinstance(answer, Refused)]
            assert refused == ["run_halted"] * CALLERS
            assert stores[-1].transact(switches.lift, kind, name, "dana") == 1
            assert isinstance(begin(stores[0], runs[0], f"{kind} lifted"), Started)

    def test_a_person_counts_once(self, stores: list[Store]) -> None:
        """Votes that come at once are all counted, each person's once, and the quorum decides."""
        run = run_of()
        enter(stores[0], run)
        answer = begin(stores[0], run, "k", ask=Ask("always", quorum=3))
        assert isinstance(answer, Waiting)
        people = ["ann", "ben", "cleo", "ann", "ben", "cleo"]
        ends = together(
            partial(
                stores[n % len(stores)].transact, decide,
                Ruling("acme", answer.approval.id, "approve", by),
            )
            for n, by in enumerate(people)
        )  # fmt: skip
        assert sum(isinstance(end, Approval) for end in ends) == 3
        (found,) = stores[-1].read(queries.approval, "acme", answer.approval.id)
        assert (found.status, sorted(d.person for d in found.decisions)) == (
            "approved", ["ann", "ben", "cleo"],
        )  # fmt: skip
        assert whole(stores[0], run)

    def test_a_yes_and_a_no_at_once_end_as_one_of_them(self, stores: list[Store]) -> None:
        """Of two people who decide differently at the same moment one is told that it is too late."""
        run = run_of()
        enter(stores[0], run)
        for turn in range(4):
            answer = begin(stores[0], run, f"{turn}", asking=True)
            assert isinstance(answer, Waiting)
            votes = [("ann", "approve"), ("ben", "reject")]
            ends = together(
                partial(
                    stores[n % len(stores)].transact, decide,
                    Ruling("acme", answer.approval.id, said, by, "because"),
                )
                for n, (by, said) in enumerate(votes)
            )  # fmt: skip
            (taken,) = [end for end in ends if isinstance(end, Approval)]
            (found,) = stores[-1].read(queries.approval, "acme", answer.approval.id)
            assert found.status == taken.status
            assert len(found.decisions) == 1

    def test_an_approval_is_used_up_by_one_start(self, stores: list[Store]) -> None:
        """Of many that come back to an approved call one starts, and the approval is used once."""
        run = run_of()
        enter(stores[0], run)
        answer = begin(stores[0], run, "k", asking=True)
        assert isinstance(answer, Waiting)
        stores[0].transact(decide, Ruling("acme", answer.approval.id, "approve", "dana"))
        answers = together(
            partial(begin, stores[n % len(stores)], run, "k", asking=True) for n in range(CALLERS)
        )
        assert started(answers) == 1
        kinds = [event.kind for event in stores[-1].read(queries.events, "acme", "r")]
        assert kinds.count("approval.used") == kinds.count("step.started") == 1
        assert whole(stores[0], run)

    def test_an_approval_that_is_over_stays_over(
        self, stores: list[Store], clock: FakeClock
    ) -> None:
        """Once anybody has seen its time pass, a clock that is set back brings nothing back to life."""
        run = run_of()
        enter(stores[0], run)
        answer = begin(stores[0], run, "k", asking=True)
        assert isinstance(answer, Waiting)
        clock.advance(hours=25)
        stores[0].transact(lambda tx: tx.now)
        clock.set_back(hours=25)
        end = stores[-1].transact(decide, Ruling("acme", answer.approval.id, "approve", "dana"))
        assert not isinstance(end, Approval)
        assert isinstance(begin(stores[-1], run, "k", asking=True), Refused)

    def test_events_stand_in_the_order_in_which_they_came(self, stores: list[Store]) -> None:
        """A run's events are numbered without a gap, and each caller's stand in its own order."""
        run = run_of()
        enter(stores[0], run)

        def caller(number: int) -> None:
            store = stores[number % len(stores)]
            for turn in range(6):
                told = Pending([Draft("plan.set", {"by": number, "turn": turn}) for _ in range(2)])
                store.transact(flush, run, told)

        together(partial(caller, number) for number in range(4))
        found = stores[-1].read(queries.events, "acme", "r")
        assert [event.seq for event in found] == list(range(1, 4 * 6 * 2 + 2))
        for number in range(4):
            turns = [e.data["turn"] for e in found if e.data.get("by") == number]
            assert turns == [turn for turn in range(6) for _ in range(2)]
        assert whole(stores[0], run)

    def test_chains_are_whole_after_a_crowd(self, stores: list[Store]) -> None:
        """Whole calls by many callers, in few runs, leave chains without a gap and right counts."""
        runs = [run_of(number) for number in range(3)]
        for run in runs:
            enter(stores[0], run)

        def caller(number: int) -> None:
            store, run = stores[number % len(stores)], runs[number % 3]
            for turn in range(4):
                begin(store, run, f"{number}.{turn}")
                settle(store, run, f"{number}.{turn}")

        together(partial(caller, number) for number in range(9))
        assert whole(stores[0], *runs)
        for run in runs:
            (info,) = stores[-1].read(queries.run, "acme", run.run_id)
            assert (info.steps, info.tool_calls) == (12, 12)
            assert stores[-1].transact(close_run, run, "succeeded", None, Pending())[0] == (
                "succeeded"
            )
        assert whole(stores[0], *runs)

    def test_a_run_that_is_entered_by_many_at_once_begins_once(self, stores: list[Store]) -> None:
        """One of them begins it and the others resume it, each as a part of its own."""
        run = run_of()
        parts = together(partial(enter, stores[n % len(stores)], run) for n in range(CALLERS))
        assert sorted(part.part for part in parts) == list(range(1, CALLERS + 1))
        kinds = [event.kind for event in stores[-1].read(queries.events, "acme", "r")]
        assert kinds == ["run.started", *["run.resumed"] * (CALLERS - 1)]
        assert len({part.hash_key for part in parts}) == 1
        assert whole(stores[0], run)
