"""What adapters build on: runs to enter, model calls to settle, streams and errors of runtimes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Generator, Iterator
from contextvars import ContextVar
from typing import Annotated, Any, Optional, TypedDict

import pytest

from agentguard import (
    BudgetExceeded,
    ConfigurationError,
    Guard,
    GuardError,
    PermissionDenied,
    Principal,
    current_run,
)
from agentguard.hosting import (
    Blocks,
    CallRef,
    Entry,
    Host,
    ModelReports,
    ain_own_context,
    annotated_as,
    dressed,
    in_own_context,
    setting,
    undressing,
)

ASKED: dict[str, Any] = {"model": "m", "messages": []}


@pytest.fixture(name="guard")
def guard_of_a_test() -> Iterator[Guard]:
    """A guard of its own."""
    guard = Guard("memory://")
    yield guard
    guard.close()


class Runtime(Host):
    """A runtime of our own."""

    name = "runtime"

    def failure(self, error: GuardError) -> BaseException:
        """Say it in the runtime's words."""
        return dressed(error, RuntimeRefusal)


class RuntimeRefusal(Exception):
    """How the runtime says no."""


# Entering runs.


def test_an_invocation_outside_of_any_run_gets_one(guard: Guard) -> None:
    """The run has the entry's workflow, principal, budget and host, and has to be entered."""
    who, host = Principal(agent="a"), Runtime()
    entry = Entry(guard, "w", principal=who, run_id="r", budget={"max_steps": 3})
    run, block = entry.choose({}, host)
    assert block is run
    assert (run.workflow, run.id, run.principal, run.host) == ("w", "r", who, host)
    with run:
        assert run.limits.max_steps == 3


def test_functions_say_who_acts_and_under_which_id(guard: Guard) -> None:
    """Both are asked with what the runtime knows of the invocation."""
    entry = Entry(
        guard, "w", principal=lambda where: Principal(agent=where["who"]),
        run_id=lambda where: where["order"],
    )  # fmt: skip
    run, _ = entry.choose({"who": "ann", "order": "o-1"}, Host(), known="t-1")
    assert (run.principal.agent, run.id) == ("ann", "o-1")


@pytest.mark.parametrize(("given", "known", "found"), [("r", "t", "r"), (None, "t", "t")])
def test_the_runtimes_own_id_is_the_runs_unless_one_is_given(
    guard: Guard, given: str | None, known: str, found: str
) -> None:
    """What goes on under one id in the runtime goes on under one run."""
    assert Entry(guard, "w", run_id=given).choose({}, Host(), known=known)[0].id == found


@pytest.mark.parametrize(
    ("known", "inside", "joins"),
    [(None, False, True), ("r", False, True), ("other", False, False), ("other", True, True)],
)
def test_what_belongs_to_the_active_run_does_not_enter_another(
    guard: Guard, *, known: str | None, inside: bool, joins: bool
) -> None:
    """Without an id, under its id, or as a part of what runs, an invocation is in the run."""
    with guard.run("w", run_id="r") as active:
        run, block = Entry(guard, "w").choose({}, Runtime(), known=known, inside=inside)
        assert (run is active, block is run) == (joins, not joins)
        with block:
            assert isinstance(run.host, Runtime)
        assert type(active.host) is Host


def test_a_run_of_another_guard_is_not_joined(guard: Guard) -> None:
    """Each guard has its own record."""
    other = Guard("memory://")
    with other.run("w"):
        run, block = Entry(guard, "w").choose({}, Host())
        assert block is run
    other.close()


# Several runtimes in one run.


class Naming(Host):
    """A runtime that names its calls, and steers itself by an exception of its own."""

    control_flow: tuple[type[BaseException], ...] = (RuntimeRefusal,)
    ref: CallRef | None = None

    def call(self) -> CallRef | None:
        """Name what is executed."""
        return self.ref


class Another(Naming):
    """A kind of it that is another runtime."""

    control_flow = ()


def test_a_runtime_is_at_work_in_its_block_and_nowhere_else(guard: Guard) -> None:
    """Blocks stand inside each other; around all of them is the host that the run was made with."""
    own = Host()
    with guard.run(host=own) as run:
        with run.inside(Runtime()), run.inside(Naming()):
            assert isinstance(run.host, Naming)
            with run.inside(Runtime()):
                assert isinstance(run.host, Runtime)
            assert isinstance(run.host, Naming)
        assert run.host is own


def test_a_run_has_one_host_of_each_kind(guard: Guard) -> None:
    """What a host remembers, it still knows in the next block; a subclass is another kind."""
    with guard.run() as run:
        hosts = []
        for host in (Naming(), Another(), Naming(), Another()):
            with run.inside(host):
                hosts.append(run.host)
    assert hosts[:2] == hosts[2:]
    assert hosts[0] is not hosts[1]


def test_a_block_does_not_replace_a_host_of_its_kind(guard: Guard) -> None:
    """Inside a runtime that is of that kind, too, the more special one stays at work."""
    with guard.run(host=Another()) as run, run.inside(Naming()):
        assert isinstance(run.host, Another)


def test_each_run_knows_where_it_is(guard: Guard) -> None:
    """A run inside another's block has a host of its own, and the outer one keeps its place."""
    with guard.run(run_id="a") as outer, outer.inside(Runtime()), guard.run(run_id="b") as inner:
        assert type(inner.host) is Host
        with inner.inside(Naming()):
            assert (type(inner.host), type(outer.host)) == (Naming, Runtime)


async def test_a_block_is_of_its_task_only(guard: Guard) -> None:
    """What runs beside it, and what has begun before it, does not see it."""
    inside, seen = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        with run.inside(Runtime()):
            inside.set()
            await seen.wait()

    async with guard.run() as run:
        task = asyncio.create_task(work())
        await inside.wait()
        assert type(run.host) is Host
        seen.set()
        await task


def test_a_runtime_that_names_no_call_is_in_the_call_around(guard: Guard) -> None:
    """Also if it still knows a call from outside of its block; what it names itself is its own."""
    around, begun = CallRef("around"), CallRef("begun")
    host, other = Naming(), Another()
    host.ref, other.ref = around, CallRef("before")
    with guard.run(host=host) as run, run.inside(other):
        assert run.call_ref() is around
        with run.tool_call("by hand"):
            assert run.call_ref() == CallRef("by hand")
        other.ref = begun
        assert run.call_ref() is begun
    assert run.call_ref() is None


def test_ids_begin_with_the_call_around_and_count_anew_in_each_execution(guard: Guard) -> None:
    """So they are the same whenever it is executed again, and differ from those elsewhere."""
    host = Naming()
    with guard.run(host=host) as run:
        assert [run.root("graph"), run.root("graph"), run.root("flow")] == ["", "+1/", ""]
        for _ in range(2):
            host.ref = CallRef("1", 2)
            roots = [run.root(), run.root("graph"), run.root("graph")]
            assert roots == ["1#2/", "1#2/", "1#2+1/"]
            assert [run.number("x", at_least=3), run.number("x"), run.number("x", 4)] == [3, 4, 5]


def test_how_a_run_ended_is_asked_of_all_its_runtimes(guard: Guard) -> None:
    """An exception by which one steers itself pauses the run, also outside of its block."""
    for run_id, kind in (("steered", Naming), ("failed", Another)):
        with contextlib.suppress(RuntimeRefusal), guard.run(run_id=run_id) as run:
            with run.inside(kind()):
                pass
            raise RuntimeRefusal
    ends = [guard.runs.show(run_id).status for run_id in ("steered", "failed")]
    assert ends == ["waiting", "failed"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (["for a person"], "waiting"),
        (["for a person", ""], "succeeded"),
        (["", "for a person"], "waiting"),
    ],
)
def test_a_run_waits_until_that_is_taken_back(guard: Guard, said: list[str], status: str) -> None:
    """An empty reason says that it waits for nothing any more."""
    with guard.run(run_id="r") as run:
        for reason in said:
            run.waiting(reason)
    assert guard.runs.show("r").status == status


def test_of_several_things_that_wait_each_is_taken_back_by_its_name(guard: Guard) -> None:
    """One conversation that goes on does not hide that another still waits."""
    with guard.run(run_id="r") as run:
        for of in ("a", "b"):
            run.waiting("for a person", of=of)
        run.waiting("", of="a")
    assert guard.runs.show("r").status == "waiting"


def test_a_runtime_takes_back_only_what_it_has_said(guard: Guard) -> None:
    """What one waits for is not forgotten when another waits no more."""
    with guard.run(run_id="r") as run:
        with run.inside(Runtime()):
            run.waiting("for a person")
        with run.inside(Naming()):
            run.waiting("for an event")
            run.waiting("")
        run.waiting("")
    assert guard.runs.show("r").status == "waiting"


# Blocks.


class Both:
    """A block in both colours that writes down how it was entered and left."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def __enter__(self) -> None:
        self.seen.append("in")

    def __exit__(self, *_: object) -> None:
        self.seen.append("out")

    async def __aenter__(self) -> None:
        self.seen.append("ain")

    async def __aexit__(self, *_: object) -> None:
        self.seen.append("aout")


@contextlib.contextmanager
def noted(seen: list[str]) -> Generator[None]:
    """A block in one colour."""
    seen.append("begin")
    try:
        yield
    finally:
        seen.append("end")


@contextlib.contextmanager
def broken() -> Generator[None]:
    """A block that cannot be entered."""
    raise KeyError
    yield


def test_several_blocks_are_entered_and_left_in_order() -> None:
    """Whichever way it is entered, each block is entered that way if it can be."""
    seen: list[str] = []
    with Blocks(7, Both(seen), noted(seen)) as value:
        assert value == 7

    async def enter() -> None:
        async with Blocks(7, Both(seen), noted(seen)) as value:
            assert value == 7

    asyncio.run(enter())
    assert seen == ["in", "begin", "end", "out", "ain", "begin", "end", "aout"]


def test_what_was_entered_is_left_when_a_later_block_cannot_be() -> None:
    """No block stays open behind an error, in both colours."""
    seen: list[str] = []
    with pytest.raises(KeyError), Blocks(None, Both(seen), broken()):
        pass

    async def enter() -> None:
        async with Blocks(None, Both(seen), broken()):
            pass

    with pytest.raises(KeyError):
        asyncio.run(enter())
    assert seen == ["in", "out", "ain", "aout"]


# Model calls.


def test_a_model_call_is_settled_under_the_runtimes_id(guard: Guard) -> None:
    """What was started is finished with what was answered; an unknown end is nobody's."""
    with guard.run(run_id="r") as run, ModelReports(run) as reports:
        reports.started("1", **ASKED)
        reports.finished("1", input_tokens=3, output_tokens=2)
        reports.finished("never started")
    told = guard.runs.show("r")
    assert (told.model_calls, told.input_tokens, told.output_tokens) == (1, 3, 2)


def test_a_model_call_that_ended_without_a_word_is_settled(guard: Guard) -> None:
    """In both colours, the record says that it was cut off, and nothing stays held."""

    async def cut_off() -> None:
        async with guard.run(run_id="async") as run, ModelReports(run) as reports:
            await reports.astarted("1", **ASKED)
            await reports.afinished("2")

    asyncio.run(cut_off())
    with guard.run(run_id="sync") as run, ModelReports(run) as reports:
        reports.started("1", **ASKED)
    for name in ("sync", "async"):
        (event,) = [e for e in guard.runs.events(name) if e.kind == "model.called"]
        assert event.data["error"] == "_CutOff"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_refused_model_call_is_raised_as_the_host_of_its_block_says(
    guard: Guard, *, asynchronous: bool
) -> None:
    """Whatever host the run was made with; nothing is left to settle."""
    run = guard.run(run_id="r", max_model_calls=0)

    async def ask() -> None:
        await run.amodel_started(**ASKED)

    def call() -> None:
        asyncio.run(ask()) if asynchronous else run.model_started(**ASKED)

    with run, run.inside(Runtime()), pytest.raises(RuntimeRefusal) as refused:
        call()
    assert isinstance(refused.value, BudgetExceeded)


# Streams.

MARK: ContextVar[str] = ContextVar("mark", default="outside")


def test_a_streams_steps_run_in_one_context_that_its_consumer_does_not_see(guard: Guard) -> None:
    """What a step sets, later steps see, and nobody else."""

    def steps() -> Generator[str]:
        MARK.set("inside")
        with guard.run(run_id="r"):
            yield MARK.get()
            yield current_run().id

    found = []
    for step in in_own_context(steps()):
        found.append((step, MARK.get()))
        with pytest.raises(ConfigurationError):
            current_run()
    assert found == [("inside", "outside"), ("r", "outside")]


async def test_an_asynchronous_stream_does_not_leak_either(guard: Guard) -> None:
    """The same on an event loop, whichever task closes the stream."""
    ended: list[str] = []

    async def steps() -> AsyncGenerator[str]:
        MARK.set("inside")
        try:
            yield MARK.get()
            yield MARK.get()
        finally:
            ended.append(MARK.get())

    stream = ain_own_context(steps())
    assert (await anext(stream), MARK.get()) == ("inside", "outside")
    await asyncio.create_task(stream.aclose())
    assert ended == ["inside"]


def test_a_stream_that_is_closed_early_ends_in_its_context() -> None:
    """The generator's own clean-up sees what its steps have set."""
    ended: list[str] = []

    def steps() -> Generator[int]:
        MARK.set("inside")
        try:
            yield 1
        finally:
            ended.append(MARK.get())

    stream = in_own_context(steps())
    next(stream)
    stream.close()
    assert (ended, MARK.get()) == (["inside"], "outside")


def test_a_variable_is_set_for_a_block_only() -> None:
    """What a block set is taken back, also when it fails."""
    with contextlib.suppress(KeyError), setting(MARK, "inside") as value:
        assert (value, MARK.get()) == ("inside", "inside")
        raise KeyError
    assert MARK.get() == "outside"


# Parameters that a runtime fills in.


class Given:
    """Something that a runtime gives."""


class More(Given):
    """A kind of it."""


class Shape(TypedDict, total=False):
    """A dict that a runtime gives."""


@pytest.mark.parametrize(
    ("annotation", "is_given"),
    [
        (Given, True), (More, True), (Given | None, True), (Optional[More], True),  # noqa: UP045 - the old spelling counts, too
        (Annotated[str, Given], True), (Annotated[str, Given()], True), (Annotated[Given, "x"], True),
        (list[Given], False), (Shape, True), (Shape | None, True), (dict, False), (str, False),
        ("Given", False), (inspect.Parameter.empty, False), (Annotated[str, "Given"], False),
    ],
)  # fmt: skip
def test_a_parameter_is_known_by_its_annotation(annotation: Any, *, is_given: bool) -> None:
    """The kind itself, one of its subclasses, an optional one and one that marks the type count."""
    parameter = inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    assert annotated_as(Given, Shape)(parameter) is is_given


# Errors.


def test_a_dressed_error_is_both_and_speaks_as_before() -> None:
    """It is caught as either class; text, sentence for the model and cause are the error's."""
    error = PermissionDenied("not today")
    error.__cause__ = KeyError("why")
    found: Any = dressed(error, RuntimeRefusal)
    assert isinstance(found, PermissionDenied)
    assert isinstance(found, RuntimeRefusal)
    assert (str(found), repr(found)) == (str(error), repr(error))
    assert (found.for_model(), found.args) == (error.for_model(), (error.for_model(),))
    assert (found.message, found.__cause__) == ("not today", error.__cause__)
    assert type(found).__name__ == "PermissionDenied"


def test_an_error_is_dressed_once() -> None:
    """What is of the runtime's class already stays the same object."""
    once = dressed(PermissionDenied("no"), RuntimeRefusal)
    assert dressed(once, RuntimeRefusal) is once


def test_a_wrapped_refusal_leaves_the_block_as_itself() -> None:
    """However deep a runtime has wrapped it; its own cause stays with it."""
    refusal, wrapped = PermissionDenied("no"), LookupError()
    refusal.__cause__, wrapped.__cause__ = KeyError("why"), refusal
    with pytest.raises(PermissionDenied) as caught, undressing():
        raise RuntimeRefusal from wrapped
    assert caught.value is refusal
    assert isinstance(refusal.__cause__, KeyError)


def test_other_errors_leave_the_block_as_they_are() -> None:
    """What is no refusal keeps its class and its cause."""
    with pytest.raises(LookupError) as caught, undressing():
        raise LookupError from ValueError()
    assert isinstance(caught.value.__cause__, ValueError)
