"""How tools fail: what is known to have had no effect, what is tried again, what stays in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from agentguard import (
    ConfigurationError,
    EffectInDoubt,
    EffectInProgress,
    Guard,
    GuardError,
    Happened,
    NoEffect,
    NotHappened,
    RateLimited,
    Retry,
    ToolFailed,
    ToolTimeout,
    Unknown,
    Verdict,
    budget,
    current_run,
    idempotent,
    tool_contract,
    verified_by,
)

AT_ONCE = Retry(attempts=3, wait=0)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: int = 1_790_000_000_000_000) -> None:
        self.micros = start

    def now(self) -> int:
        """Return the time."""
        return self.micros

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.micros += int(seconds * 1_000_000)


@pytest.fixture(name="guard")
def guard_without_a_file() -> Iterator[Guard]:
    """A guard whose store lives as long as the test."""
    guard = Guard("memory://")
    yield guard
    guard.close()


def as_write(body: Any, *, reconcile: Any = None, **contract: Any) -> Any:
    """Guard *body*, which takes one argument, as a write that has one effect for each argument."""
    contract = {"effect": "write", "name": "work", **contract}

    if asyncio.iscoroutinefunction(body):

        async def awork(x: Any) -> Any:
            return await body(x)

        return tool_contract(**contract)(idempotent(key="{x}", reconcile=reconcile)(awork))

    def work(x: Any) -> Any:
        return body(x)

    return tool_contract(**contract)(idempotent(key="{x}", reconcile=reconcile)(work))


def failing(*ends: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    """Make a body that ends as *ends* say, one start after the other, and the list of its starts."""
    starts: list[Any] = []
    left = iter(ends)

    def body(x: Any) -> Any:
        starts.append(x)
        end = next(left)
        if isinstance(end, BaseException):
            raise end
        return end

    return body, starts


def one(guard: Guard) -> Any:
    """Return the only effect of a guard's store."""
    (effect,) = guard.effects.list()
    return effect


# What the tool itself says.


def test_a_failure_declared_without_effect_is_tried_again(guard: Guard) -> None:
    """`NoEffect` starts the body again under the same key, as often as the contract says."""
    body, starts = failing(NoEffect("busy"), NoEffect("busy"), "done")
    with guard.run("w") as run:
        assert as_write(body, retry=AT_ONCE)("T-1") == "done"
    assert (len(starts), one(guard).state, one(guard).fence) == (3, "succeeded", 3)
    assert (run.usage.tool_calls, run.usage.steps) == (1, 1)


def test_retries_are_bounded(guard: Guard) -> None:
    """After the last attempt the failure reaches the caller, and a later call may start again."""
    body, starts = failing(*[NoEffect("busy")] * 3, "done")
    tool = as_write(body, retry=AT_ONCE)
    with guard.run("w"):
        with pytest.raises(NoEffect, match="busy"):
            tool("T-1")
        assert (len(starts), one(guard).state) == (3, "failed_retryable")
        assert tool("T-1") == "done"
    assert len(starts) == 4


def test_a_final_failure_is_never_tried_again(guard: Guard) -> None:
    """What can never work is told again from the record, without starting the body."""
    body, starts = failing(NoEffect("no such ticket", retryable=False))
    tool = as_write(body, retry=AT_ONCE)
    with guard.run("w"):
        with pytest.raises(NoEffect, match="no such ticket"):
            tool("T-1")
        with pytest.raises(ToolFailed, match="failed for good earlier: no such ticket"):
            tool("T-1")
    assert (len(starts), one(guard).state) == (1, "failed_final")


def test_declared_exceptions_have_no_effect(guard: Guard) -> None:
    """Exceptions named in `Retry(on=...)` are the tool's word that nothing happened."""
    body, starts = failing(BlockingIOError(), ConnectionAbortedError(), "done")
    retry = Retry(attempts=3, wait=0, on=(BlockingIOError, ConnectionAbortedError))
    with guard.run("w"):
        assert as_write(body, retry=retry)("T-1") == "done"
    assert len(starts) == 3


def test_waits_grow_are_jittered_and_bounded(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts it waits up to wait, twice wait, and so on, but never above max_wait."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    retry = Retry(attempts=6, wait=1, max_wait=5)
    guard.settings = dataclasses.replace(guard.settings, retries=None)
    with guard.run("w"):
        for ticket in range(20):
            body, _ = failing(*[NoEffect("busy")] * 6)
            with pytest.raises(NoEffect):
                as_write(body, retry=retry)(ticket)
    bounds = {0: 1, 1: 2, 2: 4, 3: 5, 4: 5}
    assert len(waits) == 20 * len(bounds)
    assert [wait for n, wait in enumerate(waits) if wait > bounds[n % len(bounds)]] == []
    assert len(set(waits)) > 90
    assert max(waits) > 3


@pytest.mark.parametrize(("asked", "waited"), [("3", [3.0]), ("100", [])])
def test_a_backend_that_asks_to_wait_is_waited_for(
    asked: str, waited: list[float], guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry-After is waited at least, but a wait beyond max_wait is left to the caller."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = httpx.HTTPStatusError(
        "busy", request=httpx.Request("POST", "http://x"),
        response=httpx.Response(429, headers={"Retry-After": asked}),
    )  # fmt: skip
    body, starts = failing(busy, "done")
    with guard.run("w"), contextlib.suppress(httpx.HTTPStatusError):
        as_write(body, retry=Retry(attempts=2, wait=0.001, max_wait=10))("T-1")
    assert (waits, len(starts)) == (waited, len(waited) + 1)


def test_a_failed_read_is_tried_again(guard: Guard) -> None:
    """A read has no effect, so any ordinary failure of it is retried."""
    body, starts = failing(ValueError("odd"), OSError("gone"), "seen")
    with guard.run("w"):
        assert guard.protect(body, name="look", effect="read", retry=AT_ONCE)(1) == "seen"
    assert len(starts) == 3


@pytest.mark.parametrize(
    "error",
    [
        NoEffect("no", retryable=False),
        ConfigurationError("wrong"),
        KeyboardInterrupt(),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_some_failures_of_a_read_are_not_tried_again(error: BaseException, guard: Guard) -> None:
    """Final words, refusals and interruptions end a read at once and pass through as they are."""
    body, starts = failing(error, "seen")
    tool = guard.protect(body, name="look", effect="read", retry=AT_ONCE)
    with guard.run("w"), pytest.raises(type(error)) as raised:
        tool(1)
    assert (raised.value, len(starts)) == (error, 1)


def test_a_read_with_a_budget_is_never_in_doubt(guard: Guard) -> None:
    """Reads that pass through the ledger have no effect to doubt either, and give back their room."""

    @tool_contract(effect="read", timeout=0.01)
    @budget(max_calls=1)
    async def look(x: int) -> str:
        if x == 0:
            await asyncio.Event().wait()
        return "seen"

    async def main() -> None:
        async with guard.run("w"):
            with pytest.raises(ToolTimeout):
                await look(0)
            assert await look(1) == "seen"

    asyncio.run(main())
    assert guard.effects.list("in_doubt") == []


# What nobody knows.


UNREADABLE = [
    ValueError("?"),
    RuntimeError("?"),
    TimeoutError("?"),
    StopIteration("?"),
    ExceptionGroup("?", [OSError()]),
]


@pytest.mark.parametrize("error", UNREADABLE, ids=lambda error: type(error).__name__)
def test_an_unknown_failure_of_a_write_is_in_doubt(error: Exception, guard: Guard) -> None:
    """What the tool raises and nobody can read stops the effect: it is listed and not repeated."""
    body, starts = failing(error)
    tool = as_write(body, retry=AT_ONCE)
    with guard.run("w"):
        with pytest.raises(
            EffectInDoubt, match=f"work failed with {type(error).__name__}"
        ) as raised:
            tool("T-1")
        assert raised.value.__cause__ is error
        with pytest.raises(EffectInDoubt):
            tool("T-1")
    (doubt,) = guard.effects.list("in_doubt")
    assert (len(starts), doubt.doubt_reason) == (1, "error_unclassified")
    assert doubt.error == {"kind": type(error).__name__, "message": str(error)}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_an_interrupted_write_is_in_doubt(error: BaseException, guard: Guard) -> None:
    """Interruptions pass through untouched, and the effect they cut short is in doubt."""
    body, starts = failing(error)
    with pytest.raises(type(error)), guard.run("w"):
        as_write(body)("T-1")
    assert (len(starts), one(guard).state, one(guard).doubt_reason) == (1, "in_doubt", "cancelled")


async def test_a_cancelled_write_is_in_doubt(guard: Guard) -> None:
    """Cancelling a task in the middle of its body leaves a doubt, written before the task ends."""
    begun = asyncio.Event()

    async def body(x: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async with guard.run("w"):
        task = asyncio.ensure_future(as_write(body)("T-1"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (one(guard).state, one(guard).doubt_reason) == ("in_doubt", "cancelled")


async def test_an_async_timeout_is_in_doubt(guard: Guard) -> None:
    """At its deadline an awaited body is cancelled; the tool's own TimeoutError is another matter."""
    ends: list[str] = []

    async def slow(x: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(x)

    async def own(x: Any) -> Any:
        raise TimeoutError(x)

    async with guard.run("w"):
        with pytest.raises(ToolTimeout, match=r"work did not end within 0.01 s") as raised:
            await as_write(slow, timeout=0.01)("T-1")
        assert (one(guard).state, one(guard).doubt_reason, ends) == ("in_doubt", "timeout", ["T-1"])
        assert raised.value.effect_id == one(guard).id
    async with guard.run("w"):
        with pytest.raises(EffectInDoubt, match="failed with TimeoutError"):
            await as_write(own, timeout=30, name="own")("T-2")


def test_a_body_that_ends_in_time_is_not_disturbed(guard: Guard) -> None:
    """A deadline that is not reached changes nothing, and the body can read it."""
    seen: list[Any] = []

    async def body(x: Any) -> Any:
        seen.append(current_run().call.deadline)
        return x

    async def main() -> None:
        async with guard.run("w"):
            assert await as_write(body, timeout=30)("T-1") == "T-1"

    asyncio.run(main())
    assert seen[0] is not None


BREAKING: list[tuple[str, Any]] = [
    ("fails_when", lambda result: result["error"]),
    ("classify", lambda _error: 1 / 0),
]


@pytest.mark.parametrize(("option", "broken"), BREAKING)
def test_a_judge_that_breaks_leaves_a_doubt(option: str, broken: Any, guard: Guard) -> None:
    """When the tool's own predicate breaks, nobody knows; the effect does not stay executing."""
    body, starts = failing({} if option == "fails_when" else OSError())
    tool = as_write(body, **{option: broken})
    with guard.run("w"):
        for _ in range(2):
            with pytest.raises(EffectInDoubt):
                tool("T-1")
    assert (len(starts), one(guard).state, one(guard).doubt_reason) == (1, "in_doubt", "not_judged")


def test_a_verifier_that_breaks_confirms_nothing(guard: Guard) -> None:
    """An exception of a verifier is a no: the effect is in doubt."""
    body, _ = failing("done")
    tool = verified_by(lambda _arguments, _result: 1 / 0)(as_write(body))
    with guard.run("w"), pytest.raises(GuardError, match="failed with ZeroDivisionError"):
        tool("T-1")
    assert (one(guard).state, one(guard).doubt_reason) == ("in_doubt", "verifier_failed")


async def test_a_cancelled_verifier_leaves_a_doubt(guard: Guard) -> None:
    """Who is cancelled while its outcome is being verified has an effect that nobody confirmed."""
    asked = asyncio.Event()

    async def verify(_arguments: Any, _result: Any) -> Verdict:
        asked.set()
        await asyncio.Event().wait()
        return Verdict(passed=True)

    async def body(x: Any) -> Any:
        return x

    async with guard.run("w"):
        task = asyncio.ensure_future(verified_by(verify)(as_write(body))("T-1"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (one(guard).state, one(guard).doubt_reason) == ("in_doubt", "cancelled")


# What a result says.


@pytest.mark.parametrize(
    ("said", "state", "starts"),
    [
        (None, "succeeded", 1),
        (False, "succeeded", 1),
        (True, "failed_retryable", 2),
        ("Error", "failed_retryable", 2),
        (NoEffect("busy"), "failed_retryable", 2),
        (NoEffect("never", retryable=False), "failed_final", 1),
    ],
    ids=repr,
)
def test_a_result_can_say_that_nothing_happened(
    said: Any, state: str, starts: int, guard: Guard
) -> None:
    """The caller gets the answer as the tool gave it; whether it may run again is what it says."""
    body, begun = failing("Error: no", "Error: no")
    tool = as_write(body, fails_when=lambda _result: said)
    with guard.run("w"):
        assert [tool("T-1"), tool("T-1")] == ["Error: no", "Error: no"]
    assert (one(guard).state, len(begun)) == (state, starts)


def test_a_result_can_say_that_nobody_knows(guard: Guard) -> None:
    """`Unknown` in an answer is a doubt."""
    body, starts = failing("Error: timeout at the bank")
    tool = as_write(body, fails_when=lambda _result: Unknown("the bank did not answer"))
    with guard.run("w"):
        with pytest.raises(EffectInDoubt, match="the bank did not answer"):
            tool("T-1")
        with pytest.raises(EffectInDoubt):
            tool("T-1")
    assert (len(starts), one(guard).doubt_reason) == (1, "answer")


# What HTTP clients and sockets say, told by themselves against a real server.


class Backend(ThreadingHTTPServer):
    """A server that answers as its path says and remembers every request it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.requests: list[str] = []
        self.goodbye = threading.Event()

    def handle_error(self, _request: Any, _address: Any) -> None:
        """A client that hangs up is what is tested."""


class Answers(BaseHTTPRequestHandler):
    """`/503?0` answers 503 with Retry-After: 0; `/silence` and `/reset` do not answer at all."""

    server: Backend

    def do_POST(self) -> None:
        """Take the request, then answer as its path says."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.path)
        what, _, wait = self.path.strip("/").partition("?")
        if what == "silence":
            self.server.goodbye.wait()
        elif what == "reset":
            reset = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self.connection.close()
        else:
            self._answer(int(what), wait)

    def _answer(self, code: int, wait: str) -> None:
        self.send_response(code)
        if wait:
            self.send_header("Retry-After", wait.replace("a-date", "Sun, 06 Nov 1994 08:49:37 GMT"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(name="backend", scope="module")
def a_backend() -> Iterator[Backend]:
    """A real HTTP server in this process."""
    backend = Backend()
    thread = threading.Thread(target=backend.serve_forever, args=(0.01,))
    thread.start()
    yield backend
    backend.goodbye.set()
    backend.shutdown()
    thread.join()
    backend.server_close()


def patience(url: str) -> float:
    """Return how long to wait for an answer: not long for one that never comes."""
    return 0.3 if url.endswith("silence") else 30


def by_urllib(url: str) -> None:
    """Post with the standard library."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, b"x"), timeout=patience(url)).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise


def by_httpx(url: str) -> None:
    """Post with httpx."""
    httpx.post(url, content=b"x", timeout=patience(url)).raise_for_status()


def by_requests(url: str) -> None:
    """Post with requests."""
    requests.post(url, data=b"x", timeout=patience(url)).raise_for_status()


CLIENTS = pytest.mark.parametrize("post", [by_urllib, by_httpx, by_requests])
SAID = [
    ("400", "failed_final", None, 1),
    ("401", "failed_retryable", None, 1),
    ("403", "failed_retryable", None, 1),
    ("404", "failed_final", None, 1),
    ("409", "in_doubt", "conflict", 1),
    ("422", "failed_final", None, 1),
    ("429", "failed_retryable", None, 3),
    ("429?0", "failed_retryable", None, 3),
    ("500", "in_doubt", "error_unclassified", 1),
    ("500?0", "in_doubt", "error_unclassified", 1),
    ("502", "in_doubt", "error_unclassified", 1),
    ("503", "in_doubt", "error_unclassified", 1),
    ("503?0", "failed_retryable", None, 3),
    ("503?a-date", "failed_retryable", None, 3),
    ("504", "in_doubt", "error_unclassified", 1),
    ("silence", "in_doubt", "error_unclassified", 1),
    ("reset", "in_doubt", "error_unclassified", 1),
]


@CLIENTS
@pytest.mark.parametrize(("path", "state", "reason", "sent"), SAID, ids=[said[0] for said in SAID])
def test_an_answer_means_what_http_says(
    path: str, state: str, reason: str | None, sent: int, post: Any, backend: Backend, guard: Guard
) -> None:
    """Refusals had no effect, 429 and 503 with Retry-After are tried again, the rest is in doubt."""
    backend.requests.clear()
    url = f"http://127.0.0.1:{backend.server_port}/{path}"
    tool = as_write(lambda _x: post(url), retry=AT_ONCE)
    with guard.run("w"), pytest.raises(Exception):  # noqa: B017, PT011 - each client has its own
        tool("T-1")
    assert (one(guard).state, one(guard).doubt_reason) == (state, reason)
    assert len(backend.requests) == sent


@CLIENTS
@pytest.mark.parametrize("where", ["nobody listens", "no such name"])
def test_what_was_never_sent_had_no_effect(where: str, post: Any, guard: Guard) -> None:
    """A refused connection and an unknown host are known to have done nothing."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = {
            "nobody listens": f"http://127.0.0.1:{port}/",
            "no such name": "http://agentguard.invalid/",
        }[where]
        starts: list[Any] = []

        def body(x: Any) -> None:
            starts.append(x)
            post(url)

        with guard.run("w"), pytest.raises(Exception) as raised:  # noqa: PT011 - each client has its own
            as_write(body, retry=AT_ONCE)("T-1")
    assert not isinstance(raised.value, GuardError)
    assert (one(guard).state, len(starts)) == ("failed_retryable", 3)


def test_a_tool_may_read_nothing_from_http(backend: Backend, guard: Guard) -> None:
    """`classify="doubt"` is for tools that make more than one request: even a 404 is a doubt."""
    url = f"http://127.0.0.1:{backend.server_port}/404"
    with guard.run("w"), pytest.raises(EffectInDoubt):
        as_write(lambda _x: by_httpx(url), classify="doubt")("T-1")


def test_a_hook_answers_a_conflict(backend: Backend, guard: Guard) -> None:
    """409 says that something is there already; the hook finds out that it is ours."""
    url = f"http://127.0.0.1:{backend.server_port}/409"
    asked: list[str] = []

    def hook(call: Any) -> Happened:
        asked.append(call.idempotency_key)
        return Happened({"id": call.arguments["x"]})

    tool = as_write(lambda _x: by_httpx(url), reconcile=hook)
    with guard.run("w"):
        assert tool("T-1") == tool("T-1") == {"id": "T-1"}
    assert (one(guard).state, asked) == ("succeeded", [one(guard).id])


@pytest.mark.parametrize("said", [Unknown("?"), None, "yes", ZeroDivisionError()], ids=repr)
def test_a_hook_that_finds_nothing_out_leaves_the_doubt(said: Any, guard: Guard) -> None:
    """Only the three answers count; a hook that breaks has found out nothing."""
    body, starts = failing(OSError("gone"))

    def hook(_call: Any) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    tool = as_write(body, reconcile=hook)
    with guard.run("w"):
        for _ in range(2):
            with pytest.raises(EffectInDoubt):
                tool("T-1")
    assert (len(starts), one(guard).state) == (1, "in_doubt")


def test_a_hook_that_says_no_lets_it_start_again(guard: Guard) -> None:
    """Nothing happened, says the hook when it is asked anew; then the body runs once more."""
    body, starts = failing(OSError("gone"), "done")
    tool = as_write(body, reconcile=lambda _call: NotHappened())
    with guard.run("w"):
        with pytest.raises(EffectInDoubt):
            tool("T-1")
        assert tool("T-1") == "done"
    assert (len(starts), one(guard).fence) == (2, 2)


# Rates.


def rated(guard: Guard, rate: str) -> Any:
    """Protect a write with a rate limit."""
    return guard.protect(lambda x: x, name="work", effect="write", key="{x}", rate_limit=rate)


def let_through(tool: Any, tickets: Any) -> int:
    """Count the calls that are not refused."""
    passed = 0
    for ticket in tickets:
        with contextlib.suppress(RateLimited):
            passed += tool(ticket) is not None
    return passed


def test_a_rate_counts_over_threads(tmp_path: Path) -> None:
    """Any number of threads start no more than the rate allows; time gives room again."""
    clock = Clock()
    guard = Guard(f"sqlite:///{tmp_path}/a.db", clock=clock)
    tool = rated(guard, "5/second")

    def caller(number: int) -> int:
        with guard.run("w"):
            return let_through(tool, [f"{number}-{n}" for n in range(4)])

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(caller, range(8))) == 5
        clock.move(0.199)
        assert sum(pool.map(caller, range(10, 18))) == 0
        clock.move(0.001)
        assert sum(pool.map(caller, range(20, 28))) == 1
        clock.move(60)
        assert sum(pool.map(caller, range(30, 38))) == 5
    guard.close()


CALLER = """
import sys
from agentguard import Guard
from tests.test_failures import Clock, let_through, rated
guard = Guard(sys.argv[1], clock=Clock())
with guard.run("w"):
    print(let_through(rated(guard, "5/second"), [f"{sys.argv[2]}-{n}" for n in range(4)]))
"""


def test_a_rate_counts_over_processes(tmp_path: Path) -> None:
    """Processes share the rate through their store."""
    url = f"sqlite:///{tmp_path}/a.db"
    callers = [
        subprocess.Popen([sys.executable, "-c", CALLER, url, str(n)], stdout=subprocess.PIPE)
        for n in range(4)
    ]
    assert sum(int(caller.communicate()[0]) for caller in callers) == 5


def test_a_refused_rate_says_when_to_come_back() -> None:
    """The refusal carries the seconds to wait, also for the model; replays need no room."""
    clock = Clock()
    guard = Guard("memory://", clock=clock)
    tool = rated(guard, "2/minute")
    with guard.run("w"):
        assert let_through(tool, "ab") == 2
        with pytest.raises(RateLimited) as refused:
            tool("c")
        assert tool("a") == "a"
        clock.move(30)
        assert tool("c") == "c"
    assert refused.value.retry_after == 30
    assert json.loads(refused.value.for_model())["retry_after"] == 30


# Calls inside calls.


def test_guarded_calls_nest(guard: Guard) -> None:
    """A guarded write inside another is an effect of its own, and a replay of the outer runs neither."""
    done: list[str] = []
    inner = as_write(done.append, name="inner")

    def body(x: Any) -> Any:
        outer = current_run().call
        inner(f"{x}-a")
        inner(f"{x}-b")
        assert current_run().call is outer
        return x

    tool = as_write(body)
    with guard.run("w"):
        assert [tool("T-1"), tool("T-1")] == ["T-1", "T-1"]
        inner("T-1-a")
    assert done == ["T-1-a", "T-1-b"]
    assert [effect.state for effect in guard.effects.list()] == ["succeeded"] * 3


async def test_awaited_calls_nest_and_run_side_by_side(guard: Guard) -> None:
    """Inner calls of one awaited body may run at once; each has its own key."""
    done: list[str] = []

    async def leaf(x: Any) -> str:
        await asyncio.sleep(0)
        done.append(current_run().call.arguments["x"])
        return str(x)

    inner = as_write(leaf, name="inner")

    async def body(x: Any) -> Any:
        return await asyncio.gather(*(inner(f"{x}-{n}") for n in range(20)))

    async with guard.run("w"):
        assert await as_write(body)("T") == [f"T-{n}" for n in range(20)]
    assert sorted(done) == sorted(f"T-{n}" for n in range(20))


def test_the_failure_of_an_inner_call_is_the_outer_calls_doubt(guard: Guard) -> None:
    """The inner effect may have no effect, but what the outer body did before is not known."""
    body, _ = failing(NoEffect("busy"))
    inner = as_write(body, name="inner")
    with guard.run("w"), pytest.raises(NoEffect):
        as_write(inner)("T-1")
    states = {effect.tool: effect.state for effect in guard.effects.list()}
    assert states == {"inner": "failed_retryable", "work": "failed_retryable"}


def test_a_call_of_itself_with_the_same_key_is_refused(guard: Guard) -> None:
    """A body that calls its own key, here through another tool, is told so instead of waiting."""
    tools: dict[str, Any] = {}

    def outer(x: Any) -> Any:
        return tools["inner"](x)

    def inner(x: Any) -> Any:
        return tools["work"](x)

    tools |= {"inner": as_write(inner, name="inner"), "work": as_write(outer)}
    with guard.run("w"), pytest.raises(EffectInDoubt) as doubt:
        tools["work"]("T-1")
    cause = doubt.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, EffectInProgress)


def test_partial_failures_count_their_attempts(guard: Guard) -> None:
    """The body sees which attempt it is, and the same key in all of them."""
    seen: list[tuple[int, int, str]] = []

    def body(_x: Any) -> Any:
        call = current_run().call
        seen.append((call.attempt, call.fence, call.idempotency_key))
        raise NoEffect("busy")

    with guard.run("w"), pytest.raises(NoEffect):
        as_write(functools.partial(body), retry=AT_ONCE)("T-1")
    assert [each[:2] for each in seen] == [(1, 1), (2, 2), (3, 3)]
    assert len({each[2] for each in seen}) == 1


# What a doubt does to the rest of its run.


@pytest.fixture
def doubted(guard: Guard) -> Iterator[tuple[Any, Any, list[Any]]]:
    """A run with a doubt in it: its write, a read, and everything that was started since."""
    body, _ = failing(OSError("gone"))
    write, starts = failing("done", "done")

    @tool_contract(effect="read")
    def look(x: Any) -> Any:
        return f"{x} is open"

    with guard.run("w", run_id="doubted"):
        with pytest.raises(EffectInDoubt):
            as_write(body, name="lost")("T-1")
        yield as_write(write), look, starts


def test_after_a_doubt_no_other_write_of_its_run_starts(
    doubted: tuple[Any, Any, list[Any]], guard: Guard
) -> None:
    """The refusal names the effect that has to be resolved first; reads go on."""
    write, look, starts = doubted
    with pytest.raises(EffectInDoubt, match="lost, step 1 of this run") as refused:
        write("T-2")
    assert refused.value.effect_id == guard.effects.list("in_doubt")[0].id
    assert look("T-2") == "T-2 is open"
    assert starts == []


def test_after_a_ruling_the_runs_writes_start_again(
    doubted: tuple[Any, Any, list[Any]], guard: Guard
) -> None:
    """Resolved either way, the doubt no longer stands in anybody's way."""
    write, _, starts = doubted
    doubt = guard.effects.list("in_doubt")[0]
    guard.effects.resolve(doubt.id, "not_happened", by="dana", reason="I looked")
    assert write("T-2") == "done"
    assert starts == ["T-2"]


def test_a_doubt_of_one_run_stops_no_other_run(
    doubted: tuple[Any, Any, list[Any]], guard: Guard
) -> None:
    """Another run of the same tenant writes as it did."""
    write, _, _ = doubted
    with guard.run("w", run_id="another"):
        assert write("T-2") == "done"


def test_what_was_done_before_a_doubt_is_still_answered_from_the_record(guard: Guard) -> None:
    """A repetition starts nothing, so a doubt does not refuse it."""
    body, _ = failing("done", OSError("gone"))
    work = as_write(body)
    with guard.run("w"):
        assert work("T-1") == "done"
        with pytest.raises(EffectInDoubt):
            work("T-2")
        assert work("T-1") == "done"
