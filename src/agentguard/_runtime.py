"""Where waiting happens: one pipeline of coroutines, driven inline or by asyncio.

The pipeline is `async def` and awaits nothing but its runtime. A sync tool drives it with a
single `send(None)` over the inline runtime; an async tool awaits it over the asyncio runtime.
The technique is gel-python's blocking client; the state it guards is ours.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds that an interrupted task waits for its commit, which goes on without it."""


Outcome: TypeAlias = "tuple[Any, BaseException | None]"
"""What a body returned, and what it raised instead."""


class DeadlinePassed(Exception):
    """Our deadline passed, as opposed to a TimeoutError of the tool's own."""


class BodyAbandoned(Exception):
    """The caller was interrupted while the body was at work in a thread."""

    def __init__(self, interrupt: BaseException) -> None:
        super().__init__()
        self.interrupt = interrupt


class ResultLost(Exception):
    """The body ended well in another process, but its result cannot leave that process."""


class Transactions(Protocol):
    """What a runtime needs of a store: one verb, one transaction."""

    def transact(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in one durable transaction and return its result."""
        ...

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Queue *verb* and call *done*(result, error) from the writer's thread."""
        ...


class Runtime(Protocol):
    """The only things the pipeline awaits."""

    def take(self, call: Any, store: Any, /) -> None:
        """Get ready for *call*, or refuse it before it starts."""
        ...

    async def commit(self, store: Transactions, verb: Callable[..., T], *args: Any) -> T:
        """Run one verb in one transaction; never given up half-way by a cancellation."""
        ...

    async def look(self, store: Any, query: Callable[..., T], *args: Any) -> T:
        """Run one query; nobody else on the event loop waits for a server's answer."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait without holding a pool thread."""
        ...

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        """Run the tool body and return its end as a value; nothing is raised.

        Ends are values, so that the tool's exceptions are never taken for ours and a
        StopIteration survives the coroutine around it (pluggy #544). The error is
        `DeadlinePassed` once *seconds* are over.
        """
        ...

    def check_cancelled(self) -> None:
        """Raise the cancellation that arrived while a commit was under way, if one did."""
        ...


class InlineRuntime:
    """Runs everything in the caller's own thread."""

    def take(self, call: Any, store: Any) -> None:
        """There is nothing to get ready."""

    async def commit(self, store: Transactions, verb: Callable[..., T], *args: Any) -> T:
        return store.transact(verb, *args)

    async def look(self, store: Any, query: Callable[..., T], *args: Any) -> T:
        found: T = store.read(query, *args)
        return found

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this runtime has no event loop to block

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        del seconds  # a timeout without an isolation is refused where it is declared
        return outcome_of(body)

    def check_cancelled(self) -> None:
        return None


class ThreadRuntime(InlineRuntime):
    """Runs the body in a thread of its own, so that the caller can stop waiting for it.

    Python cannot stop a thread: after the deadline the body goes on. `late` is called with its
    answer, so that a late success still settles the effect.
    """

    def __init__(self) -> None:
        self.late: Callable[[Any, BaseException | None], None] = lambda _value, _error: None
        self._interrupt: BaseException | None = None

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        ends: list[Outcome] = []
        lock, done = threading.Lock(), threading.Event()
        abandoned = False

        def work() -> None:
            end = outcome_of(body)
            with lock:
                ends.append(end)
                done.set()
                late = abandoned
            if late:
                self.late(*end)

        context = contextvars.copy_context()
        nothing: Outcome = (None, DeadlinePassed())
        try:
            threading.Thread(target=context.run, args=(work,), daemon=True).start()
            done.wait(seconds)
        except BaseException as interrupt:  # noqa: BLE001 - a signal handler's; raised once settled
            self._interrupt, nothing = interrupt, (None, BodyAbandoned(interrupt))
        with lock:
            abandoned = not ends
        return nothing if abandoned else ends[0]

    def check_cancelled(self) -> None:
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt


class AsyncioRuntime:
    """Runs the body on the event loop and commits through the store's writer."""

    __slots__ = ("_cancelled",)

    def __init__(self) -> None:
        self._cancelled: asyncio.CancelledError | None = None

    def take(self, call: Any, store: Any) -> None:
        """There is nothing to get ready."""

    async def commit(self, store: Transactions, verb: Callable[..., T], *args: Any) -> T:
        from asyncio import get_running_loop  # who has no event loop does not load them

        letter = _Letter(get_running_loop())
        try:
            store.submit(letter.post, verb, *args)
            result, error = await self._end(letter)
        except BaseException:
            letter.over.acquire(
                timeout=_PATIENCE
            )  # a signal handler has raised; the writer goes on
            raise
        if error is not None:
            raise error
        return cast("T", result)

    async def look(self, store: Any, query: Callable[..., T], *args: Any) -> T:
        from asyncio import to_thread

        if getattr(store, "travels", False):
            return await to_thread(store.read, query, *args)
        found: T = store.read(query, *args)  # a file answers sooner than a thread begins
        return found

    async def _end(self, letter: _Letter) -> Outcome:
        """Wait for the end even when cancelled: a commit under way cannot be taken back."""
        from asyncio import CancelledError

        while letter.end is None:  # it may be there without a word: an interrupt can end a callback
            try:
                await letter.word
            except CancelledError as cancelled:
                self._cancelled = cancelled
                letter.word = letter.loop.create_future()
        return letter.end

    async def sleep(self, seconds: float) -> None:
        from asyncio import sleep

        await sleep(seconds)

    async def invoke(self, body: Callable[[], Awaitable[Any]], seconds: float | None) -> Outcome:
        try:
            if seconds is None:
                return await body(), None
            return await self._in_time(body, seconds)
        except BaseException as error:  # noqa: BLE001 - carried as a value, raised at the edge
            return None, error

    async def _in_time(self, body: Callable[[], Awaitable[Any]], seconds: float) -> Outcome:
        from asyncio import timeout

        own: TimeoutError | None = None
        try:
            async with timeout(seconds):
                try:
                    return await body(), None
                except TimeoutError as error:
                    own = error  # the tool's own, not our deadline
                    raise
        except TimeoutError:
            return None, own or DeadlinePassed()

    def check_cancelled(self) -> None:
        cancelled, self._cancelled = self._cancelled, None
        if cancelled is not None:
            raise cancelled


class _Letter:
    """The end of one commit, from the writer's thread to the task that waits for it.

    Attributes:
        end: what the commit came to, from the moment on in which *over* is free.
        word: what the task awaits, as long as it is not cancelled.
    """

    __slots__ = ("_mail", "end", "loop", "over", "word")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.word = loop, loop.create_future()
        self.end: Outcome | None = None
        self._mail = _MAILS.get(loop) or _MAILS.setdefault(loop, _Mail())
        self.over = threading.Lock()
        self.over.acquire()

    def post(self, result: Any, error: BaseException | None) -> None:
        """Give up the end; called from the writer's thread."""
        self.end = result, error
        self.over.release()
        self._mail.post(self)


class _Mail:
    """Letters to the tasks of one event loop, which is called once for all that come together."""

    __slots__ = ("_called", "_letters")

    def __init__(self) -> None:
        self._letters: deque[_Letter] = deque()
        self._called = False

    def post(self, letter: _Letter) -> None:
        """Send a letter; called from any thread."""
        self._letters.append(letter)
        if not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # a closed loop has nobody left who waits
                letter.loop.call_soon_threadsafe(self._hand_out, letter.loop)

    def _hand_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._called = False  # first: who comes from now on calls again
        try:
            while self._letters:
                word = self._letters.popleft().word
                if not word.done():
                    word.set_result(None)
        finally:
            if self._letters:  # a signal handler has raised
                loop.call_soon(self._hand_out, loop)


_MAILS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Mail] = weakref.WeakKeyDictionary()


def outcome_of(body: Callable[[], Any]) -> Outcome:
    """Run *body* and return its end as a value."""
    try:
        return body(), None
    except BaseException as error:  # noqa: BLE001 - carried as a value, raised at the edge
        return None, error


def run_inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive *coroutine* to its end without an event loop.

    Raises:
        RuntimeError: if it waited for something that only an event loop can give.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    msg = "a synchronous guarded call waited on an event loop; this is a defect in agentguard"
    raise RuntimeError(msg)
