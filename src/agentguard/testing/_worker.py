"""The process that is to die: it delivers a call and kills itself at the place it was told.

Places are cut from outside: around each commit of the store, and before each line of the tool's own
body. Nothing in the product knows of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import inspect
import json
import linecache
import os
import signal
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from ..declaration import Declaration, declaration_of
from ..guard import Guard
from ..idempotency import Idempotency
from ..ledger import queries
from ..stores import open_store
from ..tool import Stage
from .people import Person

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path
    from types import CodeType, FrameType

    from ..config import Settings
    from ..model import Principal
    from ..protocols import Clock, Store
    from ..run import Run

T = TypeVar("T")

CROWD = 4
"""So many callers come at once."""
_COMMITS = {
    "open_run": "the run opens",
    "begin": "the start is written",
    "settle": "the end is written",
    "close_run": "the run closes",
    "decide": "a person's decision is written",
    "resolve": "what the hook found is written",
}
_UNCUT = frozenset({"sweep"})
"""Looking for dead processes, which every process does when it opens the store."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What one process is told to do, and by what means.

    Attributes:
        url: the store.
        die_at: the place where it kills itself; None lets it live.
        hook: whether the tool's reconcile hook can be asked.
    """

    tool: Callable[..., Any]
    arguments: Mapping[str, Any]
    settings: Settings | None
    principal: Principal | None
    url: str
    die_at: str | None = None
    hook: bool = True


class Points:
    """The places that a process passes, and the one from which it never comes back."""

    def __init__(self, die_at: str | None) -> None:
        self.passed: list[str] = []
        self._times = Counter[str]()
        self._die_at = die_at

    def reach(self, place: str) -> None:
        """Pass *place*, or die there."""
        self._times[place] += 1
        times = self._times[place]
        name = place if times == 1 else f"{place}, time {times}"
        self.passed.append(name)
        if name == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # until the kernel gets to it

    def reach_once(self, place: str) -> None:
        """Pass *place*, the first time only."""
        if not self._times[place]:
            self.reach(place)


class CutStore:
    """A store with a place before and one after each of its commits."""

    def __init__(self, inner: Store, points: Points) -> None:
        self._inner, self._points = inner, points
        self.clock: Clock = inner.clock
        self.url = inner.url

    def transact(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb* in one transaction."""
        self._reach("before", verb)
        result = self._inner.transact(verb, *args)
        self._reach("after", verb)
        return result

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Queue *verb*; the place after it stands in the writer's thread."""

        def committed(result: Any, error: BaseException | None) -> None:
            self._reach("after", verb)
            done(result, error)

        self._reach("before", verb)
        self._inner.submit(committed, verb, *args)

    def _reach(self, side: str, verb: Callable[..., Any]) -> None:
        if verb.__name__ not in _UNCUT:
            self._points.reach(f"{side} {_COMMITS.get(verb.__name__, verb.__name__)}")

    def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run *query* over the committed state."""
        return self._inner.read(query, *args)

    def awake(self) -> float:
        """Return seconds on a clock that goes on while this process stands still."""
        return self._inner.awake()

    def may_begin(self, since: float) -> bool:
        """Return whether this process may begin a body."""
        return self._inner.may_begin(since)

    def lifeline(self) -> tuple[int, ...]:
        """Return the descriptors that prove this process alive."""
        return self._inner.lifeline()

    def check(self) -> str:
        """Return what is wrong with what is stored."""
        return self._inner.check()

    def close(self) -> None:
        """Close the store."""
        self._inner.close()


class Worker:
    """One process with its guard, its tool and its memory of how the calls ended."""

    def __init__(self, order: Order) -> None:
        self.order, self.points = order, Points(order.die_at)
        store = open_store(order.url)
        self.left = [effect.state.value for effect in store.read(queries.effects, *_ANY)]
        self.guard = Guard(
            CutStore(store, self.points), config=order.settings, principal=order.principal
        )
        self._people = Person(
            self.guard, "approve", by="check_idempotent", reason="to see the call through"
        )
        self.answers: list[str] = []
        self.succeeded: list[bool] = []
        self._declaration = declared(order.tool)
        if not order.hook:
            take_hook_away(self._declaration)

    def deliver(self, run_id: str, times: int = 1, *, at_once: bool = False) -> None:
        """Deliver the call in a run, one after the other or all at once."""
        if self._declaration.is_async:
            asyncio.run(self._deliver_async(run_id, times, at_once=at_once))
            return
        with self._run(run_id) as run:
            works = [functools.partial(self._call, run)] * times
            (_in_threads if at_once else _in_turn)(works)

    async def _deliver_async(self, run_id: str, times: int, *, at_once: bool) -> None:
        async with self._run(run_id) as run:
            calls = [self._call_async(run) for _ in range(times)]
            if at_once:
                await asyncio.gather(*calls)
            else:
                for call in calls:
                    await call

    def _run(self, run_id: str) -> Run:
        return self.guard.run("check_idempotent", run_id=run_id, host=self._people)

    def _call(self, run: Run) -> None:
        with run.tool_call("call-1"), self._watched():
            self._answer(self.order.tool(**self.order.arguments))

    async def _call_async(self, run: Run) -> None:
        with run.tool_call("call-1"), self._watched():
            self._answer(await self.order.tool(**self.order.arguments))

    def _answer(self, result: Any) -> None:
        self.answers.append(repr(result))
        self.succeeded.append(True)

    @contextlib.contextmanager
    def _watched(self) -> Generator[None]:
        """Note how the call ends, and stop before each line of its body on the way."""
        code = code_of(self._declaration.function)
        trace = None if code is None else functools.partial(_enter, self.points, code)
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - how a caller's call ended is what is asked
            self.answers.append(f"{type(error).__name__}: {error}")
            self.succeeded.append(False)
        finally:
            sys.settrace(None)

    def tell(self, path: Path) -> None:
        """Write down what this process has passed, found and answered."""
        states = [effect.state.value for effect in self.guard.effects.list()]
        self.guard.close()
        path.write_text(
            json.dumps({
                "passed": self.points.passed, "left": self.left, "states": states,
                "answers": self.answers, "succeeded": self.succeeded,
            })
        )  # fmt: skip


_ANY = (None, None, None, 100)
"""Effects of any tenant, state and run."""


def declared(tool: Any) -> Declaration:
    """Return what is declared on *tool*, which was checked to have something."""
    found = declaration_of(tool)
    if found is None:
        raise TypeError(f"{tool!r} has no agentguard decorator")
    return found


def take_hook_away(declaration: Declaration) -> None:
    """Declare the tool without its hook, in this process only."""
    policy = declaration.policies[Stage.IDEMPOTENCY]
    if isinstance(policy, Idempotency):
        without = dataclasses.replace(policy, reconcile=None, on_doubt="halt")
        declaration.policies[Stage.IDEMPOTENCY] = without
        declaration.tools.clear()


def code_of(function: Any) -> CodeType | None:
    """Return the code of the tool's own body, below foreign decorators; None for what has none."""
    while isinstance(function, functools.partial):
        function = function.func
    found: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
    return found


def _enter(points: Points, code: CodeType, frame: FrameType, _event: str, _arg: Any) -> Any:
    """Watch the lines of the body, and of nothing else."""
    return functools.partial(_line, points, code) if frame.f_code is code else None


def _line(points: Points, code: CodeType, frame: FrameType, event: str, _arg: Any) -> Any:
    if event == "line":
        number = frame.f_lineno
        text = linecache.getline(code.co_filename, number).strip()
        points.reach_once(f"in the body, before line {number}: {text}")
    return functools.partial(_line, points, code)


def _in_turn(works: Sequence[Callable[[], None]]) -> None:
    for work in works:
        work()


def _in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Run *works* side by side, each in a copy of this context, so that all are in the run."""
    contexts = [(contextvars.copy_context(), work) for work in works]
    threads = [threading.Thread(target=context.run, args=(work,)) for context, work in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
