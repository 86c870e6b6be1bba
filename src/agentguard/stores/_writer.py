"""Group commit: a lone caller commits in its own thread, callers in a crowd share one fsync.

A batch is one transaction for several verbs. While the disk syncs one batch, the next one gathers;
then one of those who wait in it leads it, and nobody has to be woken for that alone. Nobody is
answered before the commit of its batch is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BATCH = 256
"""So that no caller waits behind an endless transaction."""
_PATIENCE = 30.0
"""Seconds that closing waits for those who came before it."""


class Item:
    """One verb that waits for its commit.

    Attributes:
        done: told of the end; None if its caller waits in `call`.
        leader: the thread of its caller, if that may lead a batch.
        over: its end is known.
    """

    __slots__ = ("args", "done", "error", "gate", "leader", "over", "result", "verb")

    def __init__(
        self, done: Callable[[Any, BaseException | None], None] | None, verb: Any, args: Any
    ) -> None:
        self.done, self.verb, self.args = done, verb, args
        self.result: Any = None
        self.error: BaseException | None = None
        self.gate: threading.Lock | None = None
        self.leader: int | None = None
        self.over = False

    def close_gate(self) -> threading.Lock:
        """Make its caller wait at a gate, which is opened when the item is over or is to lead."""
        self.gate = threading.Lock()
        self.gate.acquire()
        # The main thread leads nobody: what a signal handler raises there would end their verbs.
        if threading.current_thread() is not threading.main_thread():
            self.leader = threading.get_ident()
        return self.gate

    def finish(self) -> None:
        """Tell whoever waits for it."""
        self.over = True
        if self.gate is not None:
            self.gate.release()
        elif self.done is not None:
            self.done(self.result, self.error)


class Writer:
    """Orders the verbs of all threads and tasks of this process into batches."""

    def __init__(self, run_batch: Callable[[list[Item]], None]) -> None:
        self._run_batch = run_batch
        self._queue: deque[Item] = deque()
        # Taken itself, not through its condition, whose entry is code that a signal can interrupt.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._busy = False
        self._leader: int | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def call(self, verb: Any, args: Any) -> Any:
        """Run one verb and return its result once it is durable."""
        item = Item(None, verb, args)
        if not self._run_alone(item):
            gate = item.close_gate()
            self.put(item)
            try:
                self._follow(item, gate)
            except BaseException:  # a signal handler has raised, but the verb cannot be taken back
                self._follow(item, gate)
                raise
        if item.error is not None:
            raise item.error
        return item.result

    def _run_alone(self, item: Item) -> bool:
        """Run *item* in the caller's thread, if nobody else is there."""
        alone = False
        try:
            with self._lock:
                self._check_open()
                alone = not self._busy and not self._queue
                self._busy |= alone
            if alone:
                self._run_batch([item])
        finally:
            if alone:
                self._busy = False
                with self._lock:
                    self._hand_over()
        return alone

    def _follow(self, item: Item, gate: threading.Lock) -> None:
        """Wait for the end of *item*, and lead the batch if that falls to its caller."""
        while not item.over:
            gate.acquire()
            if not item.over:
                self._lead()

    def put(self, item: Item) -> None:
        """Queue an item; its `done` is called by who leads its batch."""
        with self._lock:
            self._check_open()
            if not self._busy:
                self._call_thread()
            self._queue.append(item)  # last: a caller interrupted before has asked for nothing

    def _call_thread(self) -> None:
        """Have the writer's own thread lead."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._drain, name="agentguard-writer", daemon=True
            )
            self._thread.start()
        self._wake.notify()

    def _drain(self) -> None:
        while True:
            with self._lock:
                while self._busy or not self._queue:
                    if self._closed and not self._queue:
                        return
                    self._wake.wait()
                self._busy, self._leader = True, threading.get_ident()
            self._lead()

    def _lead(self) -> None:
        """Run the verbs that wait now, then let somebody else lead, then tell whose are over."""
        batch: list[Item] = []
        try:
            with self._lock:
                size = min(len(self._queue), MAX_BATCH)
                batch = [self._queue.popleft() for _ in range(size)]
            self._run_batch(batch)
        finally:
            with self._lock:
                self._busy, self._leader = False, None
                self._hand_over()
            for item in batch:
                item.finish()

    def _hand_over(self) -> None:
        """Open the gate of the first who waits and may lead; without one the thread does it."""
        if self._closed:
            self._wake.notify_all()
        if self._busy or not self._queue:
            return
        successor = next((item for item in self._queue if item.leader is not None), None)
        if successor is None or successor.gate is None:
            self._call_thread()
        else:
            self._busy, self._leader = True, successor.leader
            successor.gate.release()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def close(self) -> None:
        """Let the queue run empty and stop the thread; who comes later is refused."""
        me = threading.get_ident()
        with self._lock:
            self._closed = True
            self._wake.notify_all()
            self._wake.wait_for(
                lambda: self._leader == me or not (self._queue or self._leader), _PATIENCE
            )
            thread = self._thread
        if thread is not None and thread.ident != me:
            thread.join(_PATIENCE)
