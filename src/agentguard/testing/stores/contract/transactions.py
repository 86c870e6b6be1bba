"""A transaction is whole and durable, or it never was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ....errors import StoreUnavailable
from ..crowd import Gate, gathered, look, note, noted
from ..processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....protocols import Store, Tx
    from ..openings import Openings

UPDATE = "UPDATE meta SET value = ? WHERE value = ?"


class Transactions:
    """Atomic, consistent, isolated, durable."""

    def test_what_was_written_is_there_for_everybody(self, store: Store, other: Store) -> None:
        """Once `transact` has returned, every other opening of the store sees what was written."""
        for number in range(5):
            assert store.transact(note, f"{number}", "kept") == f"{number}"
            assert other.read(look, f"{number}") == "kept"

    def test_what_was_written_outlives_its_store(self, other: Store, openings: Openings) -> None:
        """A store that is closed and opened again has everything."""
        other.transact(note, "a", "kept")
        other.close()
        assert openings.open().read(look, "a") == "kept"

    def test_a_verb_that_raises_leaves_nothing(self, store: Store) -> None:
        """Its error comes out as it is, all that it had done is undone, and the store goes on."""

        def half(tx: Tx) -> None:
            note(tx, "half")
            tx.row("SELECT value FROM meta")  # what was queued has reached the engine by now
            raise KeyError("whole")

        with pytest.raises(KeyError, match="whole"):
            store.transact(half)
        assert noted(store) == []
        assert store.transact(note, "whole") == "whole"
        assert noted(store) == ["whole"]

    @pytest.mark.parametrize(
        "broken",
        [
            lambda tx: [note(tx, "half"), note(tx, "half")],
            lambda tx: [note(tx, "half"), tx.changed("UPDATE meta SET value = NULL")],
            lambda tx: [note(tx, "half"), tx.row("SELECT nothing FROM nowhere")],
        ],
        ids=["twice the same key", "nothing where something must be", "no such table"],
    )
    def test_a_statement_that_fails_is_told_and_leaves_nothing(
        self, store: Store, broken: Callable[[Tx], Any]
    ) -> None:
        """What the engine refuses is a StoreUnavailable in one line, also of a verb's last statement."""
        with pytest.raises(StoreUnavailable) as refused:
            store.transact(broken)
        assert "\n" not in str(refused.value)
        assert not refused.value.uncertain
        assert noted(store) == []
        assert store.transact(note, "whole") == "whole"

    def test_a_transaction_sees_what_it_has_written(self, store: Store) -> None:
        """Each statement sees all statements before it."""

        def verb(tx: Tx) -> list[Any]:
            note(tx, "a", "1")
            seen = [look(tx, "a"), tx.changed(UPDATE, ("2", "1")), look(tx, "a")]
            tx.run(UPDATE, ("3", "2"))
            return [*seen, tx.changed(UPDATE, ("4", "2")), look(tx, "a")]

        assert store.transact(verb) == ["1", 1, "2", 0, "3"]

    def test_rows_are_sequences_of_what_was_selected(self, store: Store) -> None:
        """A row can be unpacked and indexed; where there is none, `row` is None and `rows` empty."""
        store.transact(lambda tx: [note(tx, "b", "2"), note(tx, "a", "1")])
        sql = "SELECT key, value FROM meta WHERE value IN (?, ?) ORDER BY value"
        rows = list(store.read(lambda tx: list(tx.rows(sql, ("1", "2")))))
        assert [(key.rpartition(":")[2], value) for key, value in rows] == [("a", "1"), ("b", "2")]
        first = store.read(lambda tx: tx.row(sql, ("1", "2")))
        assert first is not None
        assert tuple(first) == (first[0], first[1]) == tuple(rows[0])
        assert store.read(lambda tx: tx.row(sql, ("8", "9"))) is None
        assert store.read(lambda tx: list(tx.rows(sql, ("8", "9")))) == []

    def test_nobody_sees_a_transaction_that_is_under_way(self, store: Store, other: Store) -> None:
        """What is not committed is seen by nobody else, and holds no reader up."""
        gate = Gate()
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(
                store.transact, lambda tx: [note(tx, "a"), look(tx, "a"), gate.verb(tx)]
            )
            gate.wait()
            seen = noted(other), noted(store)
            gate.open()
            under_way.result(PATIENCE)
        assert (seen, noted(other)) == (([], []), ["a"])

    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO meta (key, value) VALUES ('note:b', '')",
            "UPDATE meta SET value = 'changed'",
            "DELETE FROM meta",
        ],
        ids=["insert", "update", "delete"],
    )
    def test_a_read_cannot_write(self, store: Store, sql: str) -> None:
        """A query that tries to change something is refused, changes nothing, and the store goes on."""
        store.transact(note, "a", "kept")

        def query(tx: Tx) -> None:
            tx.run(sql)
            tx.row("SELECT value FROM meta")

        with pytest.raises(StoreUnavailable):
            store.read(query)
        assert (noted(store), store.read(look, "a")) == (["a"], "kept")

    def test_what_follows_a_commit_comes_after_it(self, stores: list[Store]) -> None:
        """What a transaction has left for afterwards is done once it is durable."""
        seen: list[Any] = []

        def verb(tx: Tx) -> None:
            tx.after_commit(lambda: seen.append(stores[-1].read(look, "a")))
            note(tx, "a", "kept")

        stores[0].transact(verb)
        assert set(seen) == {"kept"}

    def test_what_follows_a_commit_is_left_out_when_there_is_none(self, store: Store) -> None:
        """What a verb has left for after its commit is not done when the verb is undone."""
        seen: list[str] = []

        def broken(tx: Tx) -> None:
            tx.after_commit(lambda: seen.append("broken"))
            note(tx, "half")
            raise KeyError

        def whole(tx: Tx) -> None:
            tx.after_commit(lambda: seen.append("whole"))
            note(tx, "whole")

        with pytest.raises(KeyError):
            store.transact(broken)
        gathered(store, [whole, broken])
        assert (set(seen), noted(store)) == ({"whole"}, ["whole"])
