"""Many callers at once: a gate that holds a store until they have gathered, and their answers."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from .processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...protocols import Store, Tx

T = TypeVar("T")


_PREFIX = "note:"
"""What tests write down lies in the table `meta`, beside what a store may keep there itself."""


def note(tx: Tx, key: str, value: str = "") -> str:
    """Write something down: a verb."""
    tx.run("INSERT INTO meta (key, value) VALUES (?, ?)", (_PREFIX + key, value))
    return key


def noted(store: Store) -> list[str]:
    """Return what was written down by `note`, sorted."""
    rows = store.read(lambda tx: list(tx.rows("SELECT key FROM meta")))
    return sorted(key.removeprefix(_PREFIX) for (key,) in rows if key.startswith(_PREFIX))


def look(tx: Tx, key: str) -> Any:
    """Return the value that was noted under *key*, or None: a query."""
    row = tx.row("SELECT value FROM meta WHERE key = ?", (_PREFIX + key,))
    return None if row is None else row[0]


class Gate:
    """A verb that holds the writer until somebody opens it."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()

    def verb(self, _tx: Tx) -> bool:
        """Wait inside a transaction."""
        self.entered.set()
        assert self._open.wait(PATIENCE), "nobody opened the gate"
        return True

    def wait(self) -> None:
        """Wait until the verb is under way."""
        assert self.entered.wait(PATIENCE), "the verb was not begun"

    def open(self) -> None:
        """Let the verb end."""
        self._open.set()


def gathered(store: Store, verbs: Sequence[Callable[[Tx], Any]]) -> list[Any]:
    """Let *verbs* come while one transaction is under way; return how each of them ended."""
    gate, ends = Gate(), [Future[Any]() for _ in verbs]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.transact, gate.verb)
        gate.wait()
        for end, verb in zip(ends, verbs, strict=True):
            store.submit(deliver(end), verb)
        gate.open()
        first.result(PATIENCE)
    return [end.exception(PATIENCE) or end.result() for end in ends]


def deliver(end: Future[T]) -> Callable[[T, BaseException | None], None]:
    """Return the `done` of `Store.submit` that keeps the answer in *end*; a second one is an error."""

    def done(result: T, error: BaseException | None) -> None:
        end.set_result(result) if error is None else end.set_exception(error)

    return done


def together(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Make *calls* at the same time, each in a thread of its own; return their results.

    Raises:
        BaseException: the first that one of them raised.
    """
    made = list(calls)
    start = threading.Barrier(len(made))

    def one(call: Callable[[], T]) -> T:
        start.wait(PATIENCE)
        return call()

    with ThreadPoolExecutor(len(made)) as pool:
        ends = [pool.submit(one, call) for call in made]
        return [end.result(PATIENCE) for end in ends]
