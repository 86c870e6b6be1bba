"""Group commit: a lone caller commits in its own thread, callers in a crowd share one fsync.

A batch is one transaction with a savepoint for each verb. While the disk syncs one batch, the
next one gathers. Nobody is answered before the commit of its batch is durable.
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


def wait_for(ready: threading.Event) -> None:
    """Wait for what cannot be taken back, also when a signal handler raises meanwhile."""
    try:
        ready.wait()
    except BaseException:
        ready.wait()
        raise


class Item:
    """One verb that waits for its commit."""

    __slots__ = ("args", "done", "error", "result", "verb")

    def __init__(
        self, done: Callable[[Any, BaseException | None], None] | None, verb: Any, args: Any
    ) -> None:
        self.done, self.verb, self.args = done, verb, args
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Orders the verbs of all threads and tasks of this process into batches."""

    def __init__(self, run_batch: Callable[[list[Item]], None]) -> None:
        self._run_batch = run_batch
        self._queue: deque[Item] = deque()
        # Taken itself, not through its condition, whose entry is code that a signal can interrupt.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def call(self, verb: Any, args: Any) -> Any:
        """Run one verb and return its result once it is durable."""
        item = Item(None, verb, args)
        if not self._run_alone(item):
            self._wait(item)
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
                    if self._queue:
                        self._wake.notify()
        return alone

    def _wait(self, item: Item) -> None:
        ready = threading.Event()
        item.done = lambda _result, _error: ready.set()
        self.put(item)
        wait_for(ready)

    def put(self, item: Item) -> None:
        """Queue an item; its `done` is called from the writer's thread."""
        with self._lock:
            self._check_open()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._drain, name="agentguard-writer", daemon=True
                )
                self._thread.start()
            if not self._busy:
                self._wake.notify()
            self._queue.append(item)  # last: a caller interrupted before has asked for nothing

    def _drain(self) -> None:
        while True:
            with self._lock:
                while not (self._queue and not self._busy):
                    if self._closed and not self._queue:
                        return
                    self._wake.wait()
                self._busy = True
                size = min(len(self._queue), MAX_BATCH)
                batch = [self._queue.popleft() for _ in range(size)]
            self._run_batch(batch)
            with self._lock:
                self._busy = False
            for item in batch:
                if item.done is not None:
                    item.done(item.result, item.error)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def close(self) -> None:
        """Let the queue run empty and stop the thread; who comes later is refused."""
        with self._lock:
            self._closed = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=30)
