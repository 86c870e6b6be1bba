"""A transaction that the ledger and a tool's own statements share: all of it, or nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ....errors import StoreUnavailable
from ..crowd import look, note, noted
from ..processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....protocols import OpenTransaction, Store

MAKE = "CREATE TABLE IF NOT EXISTS contract_theirs (word TEXT)"
EMPTY = "DELETE FROM contract_theirs"
WRITE = "INSERT INTO contract_theirs VALUES ('a')"
COUNT = "SELECT count(*) FROM contract_theirs"


class Shared:
    """Transactions that stay open (stores that have a method `open`)."""

    @pytest.fixture
    def begin(self, store: Store) -> Callable[[], OpenTransaction]:
        """Begin one, after a table of a tool's own was made; skip where a store has none."""
        made: Callable[[], OpenTransaction] | None = getattr(store, "open", None)
        if made is None:
            pytest.skip("this store has no transactions that a tool can share")
        store.transact(lambda tx: tx.run(MAKE))
        store.transact(lambda tx: tx.run(EMPTY))
        return made

    @staticmethod
    def _theirs(store: Store) -> int:
        row = store.read(lambda tx: tx.row(COUNT))
        return int(row[0]) if row else -1

    def test_verbs_and_statements_end_together(
        self, store: Store, begin: Callable[[], OpenTransaction], stores: list[Store]
    ) -> None:
        """After `commit` everybody sees what the verbs and what the tool's statements have written."""
        shared = begin()
        assert shared.apply(note, "before") == "before"
        shared.keep()
        shared.connection.execute(WRITE)
        shared.apply(note, "after")
        shared.commit()
        assert (noted(stores[-1]), self._theirs(store)) == (["after", "before"], 1)

    def test_what_is_rolled_back_never_was(
        self, store: Store, begin: Callable[[], OpenTransaction], stores: list[Store]
    ) -> None:
        """After `rollback`, which may come twice, nothing of it is there, and the store goes on."""
        shared = begin()
        shared.apply(note, "before")
        shared.keep()
        shared.connection.execute(WRITE)
        shared.rollback()
        shared.rollback()
        assert (noted(stores[-1]), self._theirs(store)) == ([], 0)
        assert store.transact(note, "later") == "later"

    def test_a_tools_statements_can_be_undone_alone(
        self, store: Store, begin: Callable[[], OpenTransaction], stores: list[Store]
    ) -> None:
        """`undo` goes back to the point that was kept; what came before it can be committed."""
        shared = begin()
        shared.apply(note, "before")
        shared.keep()
        shared.connection.execute(WRITE)
        shared.undo()
        shared.apply(note, "after")
        shared.commit()
        assert (noted(stores[-1]), self._theirs(store)) == (["after", "before"], 0)

    def test_nobody_sees_it_before_its_end(
        self, other: Store, begin: Callable[[], OpenTransaction]
    ) -> None:
        """What is written in it is seen by nobody else until it is committed."""
        shared = begin()
        shared.apply(note, "a")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(noted, other).result(PATIENCE) == []
        shared.commit()
        assert noted(other) == ["a"]

    def test_a_verb_that_fails_in_it_can_be_rolled_back(
        self, store: Store, begin: Callable[[], OpenTransaction]
    ) -> None:
        """An error of a verb comes out; nothing of the transaction is there once it is rolled back."""

        def broken(tx: Any) -> None:
            note(tx, "a")
            tx.row("SELECT nothing FROM nowhere")

        shared = begin()
        with pytest.raises(StoreUnavailable):
            shared.apply(broken)
        shared.rollback()
        assert store.read(look, "a") is None
