"""Stores with a bug each, made of ours; the test of the contract that must catch it stands beside it.

`tests/stores/test_contract_catches.py` runs each of them in that one test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentguard.errors import StoreUnavailable
from agentguard.protocols import Clock, Store, Tx
from agentguard.stores._sqlite_tx import SqliteTx
from agentguard.stores._writer import Item
from agentguard.stores.sqlite import SqliteStore
from agentguard.testing.stores import StoreContract


class Contract(StoreContract):
    """The contract, for one broken store."""

    kind: ClassVar[Callable[..., SqliteStore]]
    caught_by: ClassVar[str]

    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        """A file of its own."""
        return f"{tmp_path}/a.db"

    def open(self, url: str, clock: Clock | None) -> Store:
        """Open the broken store."""
        return type(self).kind(url, clock=clock)


class HalfKept(SqliteStore):
    """What a verb had done before it failed stays."""

    def transact(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Commit whatever was done."""

        def whatever(tx: Tx) -> tuple[Any, BaseException | None]:
            try:
                return verb(tx, *args), None
            except Exception as error:  # noqa: BLE001 - the bug
                return None, error

        result, error = super().transact(whatever)
        if error is not None:
            raise error
        return result


class Hasty(SqliteStore):
    """Callers are told before the commit."""

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Tell the result from inside the transaction."""

        def told(tx: Tx) -> Any:
            result = verb(tx, *args)
            done(result, None)
            return result

        super().submit(lambda *_: None, told)


class Talkative(SqliteStore):
    """Callers are told twice."""

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Tell the result, and tell it again."""

        def twice(result: Any, error: BaseException | None) -> None:
            done(result, error)
            done(result, error)

        super().submit(twice, verb, *args)


class Buffer(SqliteTx):
    """Reads what is committed and writes at the end: what an engine does whose locks are forgotten."""

    writes: list[tuple[str, Sequence[Any]]]

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Write it later."""
        self.writes.append((sql, values))


class Unlocked(SqliteStore):
    """Rows that are locked can be changed by others."""

    def transact(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Read in one transaction, write in the next one."""
        with self._read_lock:
            tx = Buffer(self._reading(), self._owner, self._now())
            tx.writes = []
            result = verb(tx, *args)
        super().transact(lambda real: [real.changed(*write) for write in tx.writes])
        return result


class Selfish(SqliteStore):
    """One verb of a crowd that fails takes the others with it."""

    def _run_again_apart(self, batch: list[Item]) -> None:
        for item in batch:
            item.result, item.error = None, StoreUnavailable("somebody failed")


class Forgetful(SqliteStore):
    """What follows a commit is done before it."""

    def transact(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Do at once what should wait."""

        def at_once(tx: Any) -> Any:
            try:
                return verb(tx, *args)
            finally:
                for done in tx.afterwards:
                    done()

        return super().transact(at_once)


class Backwards(SqliteStore):
    """Time runs backwards when the clock is set back."""

    def _now(self) -> int:
        return self.clock.now()


class Scribbling(SqliteStore):
    """Queries can write."""

    def read(self, query: Callable[..., Any], *args: Any) -> Any:
        """Read in a transaction like any other."""
        return self.transact(query, *args)


class Undead(SqliteStore):
    """Whoever is not us is taken for dead, as by a lease that is always over."""

    def _commit(self, batch: list[Item], *, apart: bool = False) -> None:
        self._owner.is_dead = lambda tx, owner: owner != self._owner.id  # type: ignore[method-assign]
        super()._commit(batch, apart=apart)


class Immortal(SqliteStore):
    """Nobody is ever proven dead."""

    def _commit(self, batch: list[Item], *, apart: bool = False) -> None:
        self._owner.is_dead = lambda tx, owner: False  # type: ignore[method-assign]
        super()._commit(batch, apart=apart)


class Zombie(SqliteStore):
    """A store that was closed opens again."""

    def transact(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Open it again."""
        if self._closed:
            self._closed = False
            self._reset()
        return super().transact(verb, *args)


class Twin(SqliteStore):
    """A forked child believes to be its parent."""

    def after_fork_in_child(self) -> None:
        """Keep the parent's identity."""
        owner = self._owner_
        self._reset()
        self._owner_ = owner


class Impatient(SqliteStore):
    """Who is interrupted while waiting goes, and is never told what came of it."""

    def transact(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Wait in a way that can be interrupted."""
        ready, ends = threading.Event(), list[Any]()

        def done(result: Any, error: BaseException | None) -> None:
            ends.extend([result, error])
            ready.set()

        self.submit(done, verb, *args)
        ready.wait()
        if ends[1] is not None:
            raise ends[1]
        return ends[0]


class Tidy(SqliteStore):
    """Texts are stripped of their blanks."""

    def transact(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Strip them."""
        return super().transact(lambda tx: verb(Stripping(tx), *args))


class Stripping:
    """A transaction that tidies up."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def run(self, sql: str, values: Iterable[Any] = ()) -> None:
        """Strip every text."""
        self._tx.run(sql, [v.strip() if isinstance(v, str) else v for v in values])


BROKEN: dict[type[SqliteStore], str] = {
    HalfKept: "test_a_verb_that_raises_leaves_nothing",
    Hasty: "test_an_answer_comes_after_durability",
    Talkative: "test_everybody_is_answered_once_from_another_thread",
    Unlocked: "test_a_locked_row_is_changed_in_turns",
    Selfish: "test_a_verb_that_fails_undoes_only_itself",
    Forgetful: "test_what_follows_a_commit_is_left_out_when_there_is_none",
    Backwards: "test_time_does_not_run_backwards",
    Scribbling: "test_a_read_cannot_write",
    Undead: "test_a_process_that_lives_is_not_lost",
    Immortal: "test_a_process_that_was_killed_is_dead",
    Zombie: "test_a_closed_store_stays_closed_and_says_so",
    Twin: "test_a_fork_works_with_an_open_store",
    Impatient: "test_who_is_interrupted_while_waiting_knows_the_end",
    Tidy: "test_a_text_comes_back_as_it_was",
}

for _kind, _test in {**BROKEN, SqliteStore: ""}.items():
    _name = f"Test{_kind.__name__}"
    globals()[_name] = type(_name, (Contract,), {"kind": _kind, "caught_by": _test})
