"""Everything that people and programs ask of the record is answered, and alike by every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ....ledger import queries, switches
from ....ledger.lifecycle import cancel_run, close_run, stops
from ....ledger.values import Ask, Pending, RunRef
from ..ledger import COST, Ledger

if TYPE_CHECKING:
    from ....protocols import Store
    from ...clock import FakeClock


class Readers:
    """Lists, beginnings of names, counts, chains."""

    @pytest.fixture
    def record(self, store: Store, clock: FakeClock) -> Ledger:
        """Two tenants' runs: effects that ended well, wait, failed, are in doubt."""
        stranger = Ledger([store], clock, "globex", ["r_1"])
        stranger.do("begin", "theirs", "r_1")
        clock.advance(1)
        ledger = Ledger([store], clock, "acme", ["r_1", "rx1", "r_2"])
        for key, verb in (("done", "returned"), ("doubtful", "unclear"), ("failed", "no_effect")):
            clock.advance(1)
            run = "r_2" if key == "doubtful" else "r_1"
            ledger.do("begin", key, run)
            ledger.do(verb, key, run)
        ledger.do("begin_asking", "asked", "r_1")
        return ledger

    def test_runs_are_listed_newest_first(self, store: Store, record: Ledger) -> None:
        """By tenant, by status, at most so many, and with what they have used."""
        record.clock.advance(1)
        store.transact(cancel_run, "acme", "rx1", "dana", "enough")
        runs = store.read(queries.runs, None, 10)
        assert [run.started_at for run in runs] == sorted(
            (run.started_at for run in runs), reverse=True
        )
        assert {run.id for run in store.read(queries.runs, "globex", 10)} == {"r_1"}
        assert [run.id for run in store.read(queries.runs, "acme", 10, "cancelled")] == ["rx1"]
        assert len(store.read(queries.runs, None, 2)) == 2
        (found,) = store.read(queries.run, "acme", "r_2")
        assert (found.steps, found.tool_calls, found.status) == (1, 1, "running")
        assert found.held_usd * 1_000_000_000 == COST

    def test_a_name_may_be_shortened(self, store: Store, record: Ledger) -> None:
        """A name finds what is called so, else what begins so; `_` and `%` stand for themselves."""
        assert [r.id for r in store.read(queries.run, "acme", "r_1")] == ["r_1"]
        assert sorted(r.id for r in store.read(queries.run, "acme", "r_")) == ["r_1", "r_2"]
        assert store.read(queries.run, "acme", "%") == []
        (effect,) = store.read(queries.effect, "acme", "dou")
        assert (effect.id, effect.state) == ("doubtful", "in_doubt")
        row = record.row("asked")
        assert row is not None
        (approval,) = store.read(queries.approval, "acme", (row.approval_id or "")[:12])
        assert (approval.id, approval.effect_id) == (row.approval_id, "asked")

    def test_effects_are_listed_newest_first(self, store: Store, record: Ledger) -> None:
        """By tenant, state and run."""
        assert record.tenant == "acme"
        listed = store.read(queries.effects, "acme", None, None, 10)
        assert [effect.id for effect in listed] == ["failed", "asked", "doubtful", "done"] or (
            [effect.id for effect in listed] == ["asked", "failed", "doubtful", "done"]
        )
        for state, names in (("in_doubt", ["doubtful"]), ("succeeded", ["done"]), ("denied", [])):
            found = store.read(queries.effects, "acme", state, None, 10)
            assert [effect.id for effect in found] == names
        (theirs,) = store.read(queries.effects, "globex", None, "r_1", 10)
        assert (theirs.id, theirs.state, theirs.fence) == ("theirs", "executing", 1)

    def test_what_waits_is_listed_oldest_first(self, store: Store, record: Ledger) -> None:
        """Approvals by status; one whose time is over counts as expired though nobody wrote it down."""
        record.clock.advance(1)
        record.do("begin_asking", "later", "r_1")
        waiting = store.read(queries.waiting, "acme", "pending", 10)
        assert [approval.effect_id for approval in waiting] == ["asked", "later"]
        assert store.read(queries.waiting, "globex", None, 10) == []
        record.clock.advance(hours=25)
        assert store.read(queries.waiting, "acme", "pending", 10) == []
        assert len(store.read(queries.waiting, "acme", "expired", 10)) == 2

    def test_things_are_counted(self, store: Store, record: Ledger) -> None:
        """How many rows there are of each kind, and what a run has come to."""
        counts = store.read(queries.counts)
        assert (counts["runs"], counts["effects"], counts["approvals"]) == (4, 5, 1)
        assert (counts["in_doubt"], counts["awaiting_approval"], counts["executing"]) == (1, 1, 1)
        record.do("begin", "failed", "r_1")
        assert store.read(queries.tally, "acme", "r_1") == {
            "writes": 1, "retries": 1, "waiting": 1, "in_doubt": 0,
        }  # fmt: skip
        assert store.read(queries.tally, "acme", "r_2")["in_doubt"] == 1
        assert set(store.read(queries.tally, "acme", "nowhere").values()) == {0}

    def test_a_chain_is_read_in_order_from_anywhere(self, store: Store, record: Ledger) -> None:
        """Events come with contents, actors and hashes that follow from each other."""
        events = store.read(queries.events, "acme", "r_1")
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [later.prev for later in events[1:]] == [event.hash for event in events[:-1]]
        assert store.read(queries.events, "acme", "r_1", 3) == events[3:]
        started = next(event for event in events if event.kind == "step.started")
        assert started.content == {"arguments": {"to": "done"}}
        for run in ("r_1", "rx1", "r_2"):
            assert store.read(queries.broken_link, record.tenant, run) is None

    def test_a_run_ends_as_what_waits_in_it_lets_it(self, store: Store, record: Ledger) -> None:
        """A run in which a call waits for people is waiting, another one has succeeded."""
        ends = [
            store.transact(close_run, record.ref(run), "succeeded", None, Pending())[0]
            for run in ("r_1", "r_2")
        ]
        assert ends == ["waiting", "succeeded"]

    def test_switches_are_told(self, store: Store, record: Ledger) -> None:
        """What stands is listed, and reads are told which tools are stopped."""
        store.transact(switches.throw, "tool", "pay", "dana", "it is broken")
        (switch,) = store.read(switches.thrown)
        assert (switch["kind"], switch["name"], switch["by"]) == ("tool", "pay", "dana")
        ref = RunRef("acme", "r_1", "agent:bot")
        assert list(store.read(stops, ref, "bot")) == ["pay"]
        assert store.transact(switches.lift, "tool", "pay", "dana") == 1
        assert store.read(switches.thrown) == []
        assert store.read(stops, record.ref("r_1"), "bot") == {}

    def test_an_approval_is_shown_as_it_was_asked(self, store: Store, record: Ledger) -> None:
        """Roles, quorum, arguments and times come back as they were given."""
        ask = Ask("amount > 50", roles=("finance", "ops"), quorum=2, expires=60.0, allow_edit=True)
        wish = record.intent("begin", "more", "r_1")
        wish.ask = ask
        from ....ledger import effects

        store.transact(effects.begin, wish)
        found = record.approval(record.row("more"))
        assert found is not None
        assert (found.rule, found.roles, found.quorum, found.allow_edit) == (
            "amount > 50", ("finance", "ops"), 2, True,
        )  # fmt: skip
        assert (found.expires_at - found.created_at).total_seconds() == 60
        assert found.arguments == {"to": "more"}
