"""Bodies in threads and processes of their own: how they are given up, and what is known then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ConfigurationError,
    ContractViolation,
    EffectInDoubt,
    Guard,
    GuardError,
    NoEffect,
    NotHappened,
    ResultUnavailable,
    Retry,
    ToolTimeout,
    idempotent,
    tool_contract,
)
from tests import isolated_langchain
from tests import isolated_tools as tools

LINE = tools.Line(product="p", price=Decimal("1.10"))
needs_process = tool_contract(effect="write", isolation="process")
by_key = idempotent(key="{key}")


@pytest.fixture(name="guard")
def guard_on_a_file(tmp_path: Path) -> Iterator[Guard]:
    """A guard on an embedded store."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    yield guard
    guard.close()


@pytest.fixture(name="world")
def where_effects_happen(tmp_path: Path) -> Path:
    """An empty file to which tools append what they do."""
    (tmp_path / "world.txt").touch()
    return tmp_path / "world.txt"


def effects(world: Path) -> list[str]:
    """Return everything that happened, in order."""
    return world.read_text().splitlines()


def one(guard: Guard) -> Any:
    """Return the only effect of a guard's store."""
    (effect,) = guard.effects.list()
    return effect


# A process.


def test_a_process_runs_the_tool_as_if_it_were_here(
    guard: Guard, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments, the call, the folder and the environment are there, and typed results come back."""
    monkeypatch.chdir(world.parent)
    monkeypatch.setenv("AGENTGUARD_TEST_SETTING", "kept")
    with guard.run("refunds") as run:
        told = tools.refund("T-1", world, LINE, [b"\xff\x00"])
        again = tools.refund("T-1", world, LINE, more=[b"\xff\x00"])
    assert effects(world) == ["refund T-1 1.10 [b'\\xff\\x00']"]
    assert told == again
    assert told.pop("process") != os.getpid()
    assert told == {
        "run": run.id,
        "tenant": "default",
        "key": one(guard).id,
        "fence": 1,
        "attempt": 1,
        "deadline": None,
        "arguments": Decimal("1.10"),
        "folder": str(world.parent),
        "setting": "kept",
    }


def test_what_a_tool_prints_is_no_answer(guard: Guard, capfd: pytest.CaptureFixture[str]) -> None:
    """Output of the tool and of what it starts goes where ours goes; its stdin is empty."""
    with guard.run("noise"):
        assert tools.noisy("T-1") == "heard ''"
    printed = capfd.readouterr()
    assert sorted(printed.out.splitlines()) == ["out T-1", '{"result": "j1"}']
    assert printed.err.splitlines() == ['{"result": "j0"}']


def test_a_big_result_comes_back_though_it_is_not_kept(guard: Guard) -> None:
    """A result larger than any pipe reaches the caller; only the record has a limit."""
    with guard.run("big"):
        assert tools.big("x", 3_000_000) == "x" * 3_000_000
    assert one(guard).result_state == "too_large"


def test_a_result_that_no_json_carries_leaves_a_success(guard: Guard, world: Path) -> None:
    """The effect is done and stays done, though its result cannot leave the process."""
    with guard.run("odd"):
        for _ in range(2):
            with pytest.raises(ResultUnavailable):
                tools.unstorable("T-1", world)
    assert (one(guard).state, effects(world)) == ("succeeded", ["T-1"])


def test_a_lost_result_that_somebody_has_to_look_at_is_in_doubt(guard: Guard, world: Path) -> None:
    """What a verifier cannot see it cannot confirm."""
    tool = guard.protect(
        tools.unstorable.__wrapped__,  # type: ignore[attr-defined]
        name="odd", effect="write", key="{key}", isolation="process",
        verified_by=lambda _arguments, _result: True,
    )  # fmt: skip
    with guard.run("odd"), pytest.raises(ResultUnavailable):
        tool("T-1", world)
    assert (one(guard).state, one(guard).doubt_reason) == ("in_doubt", "result_lost")


def test_a_process_is_killed_at_its_deadline_with_all_it_started(guard: Guard, world: Path) -> None:
    """At the deadline the tool and its own children are gone; the effect is in doubt, its cost is not."""
    os.mkfifo(world.parent / "pipe")
    reader = subprocess.Popen(["cat", str(world.parent / "pipe")], stdout=subprocess.PIPE)
    with guard.run("stuck"):
        with pytest.raises(ToolTimeout, match="stuck did not end within 4 s"):
            tools.stuck("T-1", world)
        assert reader.communicate()[0] == b""  # ends when nobody can write any more
        with pytest.raises(EffectInDoubt):
            tools.stuck("T-1", world)
    assert (one(guard).doubt_reason, effects(world)) == ("timeout", ["begun T-1"])
    assert [run.spent_usd for run in guard.runs.list()] == [Decimal("0.01")]


def test_a_process_is_killed_when_its_caller_is_interrupted(guard: Guard, world: Path) -> None:
    """Ctrl-C ends the tool with all it started; whoever pressed it sees the doubt at once."""
    os.mkfifo(world.parent / "pipe")
    ends: list[bytes] = []

    def interrupt() -> None:
        with (world.parent / "pipe").open("rb") as alive:  # opens when the body has begun
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            ends.append(alive.read())  # returns when nobody can write any more

    thread = threading.Thread(target=interrupt)
    thread.start()
    with guard.run("stuck"), pytest.raises(KeyboardInterrupt):
        tools.stuck("T-1", world)
    thread.join()
    assert (one(guard).state, one(guard).doubt_reason, ends) == ("in_doubt", "cancelled", [b""])


@pytest.mark.parametrize(
    ("how", "error", "state", "attempts"),
    [
        ("nothing sent", "NotSent", "failed_retryable", 3),
        ("no effect", "NoEffect", "failed_retryable", 3),
        ("no effect for good", "NoEffect", "failed_final", 1),
        ("connection refused", "ConnectionRefusedError", "failed_retryable", 3),
        ("404", "HTTPError", "failed_final", 1),
        ("409", "EffectInDoubt", "in_doubt", 1),
        ("429", "HTTPError", "failed_retryable", 3),
        ("500", "EffectInDoubt", "in_doubt", 1),
        ("value", "EffectInDoubt", "in_doubt", 1),
        ("exit", "EffectInDoubt", "in_doubt", 1),
        ("os exit", "EffectInDoubt", "in_doubt", 1),
        ("killed", "EffectInDoubt", "in_doubt", 1),
        ("stop iteration", "EffectInDoubt", "in_doubt", 1),
        ("keyboard", "EffectInDoubt", "in_doubt", 1),
    ],
)
def test_a_failure_means_the_same_in_a_process(
    how: str, error: str, state: str, attempts: int, guard: Guard, world: Path
) -> None:
    """What the tool raises is judged where it is raised; dying unasked leaves doubt."""
    with guard.run("failing"), pytest.raises(Exception) as raised:  # noqa: PT011 - any, and its name is compared
        tools.failing("T-1", world, how)
    assert (type(raised.value).__name__, one(guard).state) == (error, state)
    assert effects(world) == [f"{how} {attempt}" for attempt in range(1, attempts + 1)]


def test_an_exception_keeps_its_name_its_words_and_its_traceback(guard: Guard, world: Path) -> None:
    """The cause of a doubt is called like the child's exception and carries its traceback."""
    with guard.run("failing"), pytest.raises(EffectInDoubt) as raised:
        tools.failing("T-1", world, "value")
    cause = raised.value.__cause__
    assert (type(cause).__name__, str(cause)) == ("ValueError", "is it done?")
    assert cause is not None
    assert "isolated_tools.py" in cause.__notes__[0]
    assert one(guard).error == {"kind": "ValueError", "message": "is it done?"}


@pytest.mark.parametrize(
    ("how", "attempts"), [("value", 3), ("killed", 3), ("no effect for good", 1)]
)
def test_a_failed_read_in_a_process_is_tried_again(
    how: str, attempts: int, guard: Guard, world: Path
) -> None:
    """Reads have no effect to doubt, so their failures are retried, the death of a process too."""
    with guard.run("looking"), pytest.raises(Exception):  # noqa: B017, PT011 - any
        tools.look(world, how)
    assert len(effects(world)) == attempts


def test_a_guarded_call_inside_a_process_is_refused(guard: Guard) -> None:
    """A body in a process has no record to write to, so it cannot call guarded tools."""
    with guard.run("nesting"), pytest.raises(EffectInDoubt) as raised:
        tools.nesting("T-1")
    assert "cannot call guarded tools" in str(raised.value.__cause__)


def test_a_process_ends_with_its_body(guard: Guard) -> None:
    """A thread that the tool left behind keeps nobody waiting."""
    with guard.run("threads"):
        assert tools.threading_tool("T-1") == "T-1"


def test_a_tool_below_a_runtimes_decorator_is_found(guard: Guard) -> None:
    """The child runs the guarded function, though its name in the module is a tool object."""
    with guard.run("tools"):
        key, process = isolated_langchain.work.invoke({"key": "T-1"}).split()
    assert (key, process != str(os.getpid())) == ("T-1", True)


def test_a_protected_function_runs_in_a_process(guard: Guard) -> None:
    """`protect` isolates functions that nobody decorated, by signature or by schema."""
    schema = {"type": "object", "properties": {"key": {"type": "string"}}}
    options: dict[str, Any] = {"effect": "write", "key": "{key}", "isolation": "process"}
    by_signature = guard.protect(tools.plain, name="a", **options)
    by_schema = guard.protect(tools.plain, name="b", input_schema=schema, **options)
    with guard.run("plain"):
        processes = {os.getpid(), by_signature("T-1"), by_schema(key="T-1")}
    assert len(processes) == 3


def test_a_protected_function_cannot_take_its_own_rules_along(guard: Guard) -> None:
    """Rules that only the parent knows are refused before the body begins: nothing happened."""
    tool = guard.protect(
        tools.plain, effect="write", key="{key}", isolation="process", classify="doubt"
    )
    with guard.run("plain"), pytest.raises(NoEffect, match="decorate it where it is defined"):
        tool("T-1")
    assert one(guard).state == "failed_retryable"


@pytest.mark.parametrize(
    "function",
    [lambda key: key, str.upper, tools.Line, Guard.close],
    ids=["lambda", "method of C", "class", "method"],
)
def test_what_another_process_cannot_import_is_refused(function: Any) -> None:
    """Lambdas, inner functions, methods and classes are refused where the decorator runs."""

    def inner(key: str) -> str:
        return key

    for each in (function, inner):
        with pytest.raises(ConfigurationError, match=r"not a function|cannot import it"):
            needs_process(each)


def test_a_function_of_the_started_script_is_refused(tmp_path: Path) -> None:
    """A child would have to run the script again, so its functions are refused with a sentence."""
    script = tmp_path / "script.py"
    script.write_text(
        "from agentguard import tool_contract\n"
        "@tool_contract(effect='read', isolation='process')\n"
        "def look(x: int) -> int: return x\n"
    )
    ended = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert "is defined in the script that was started, which would run again" in ended.stderr


def test_an_argument_that_cannot_be_handed_over_is_refused_before_the_start(guard: Guard) -> None:
    """What has no JSON that comes back as itself is a contract violation, not a doubt."""
    tool = guard.protect(tools.anything, effect="write", per="call", isolation="process")
    with guard.run("odd"):
        assert tool((1, Decimal("1.10"))) == (1, Decimal("1.10"))
        with pytest.raises(ContractViolation, match="cannot be handed to another process: a Line"):
            tool(LINE)
    assert one(guard).state == "succeeded"


def test_a_child_that_cannot_import_the_tool_has_done_nothing(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, world: Path
) -> None:
    """A child that fails before the body says so, and the effect may be tried again."""
    with guard.run("refunds"):
        monkeypatch.setattr(
            sys, "path", [p for p in sys.path if "site-packages" in p or "src" in p]
        )
        with pytest.raises(NoEffect, match="did not get as far as the tool: ModuleNotFoundError"):
            tools.refund("T-1", world, LINE, [])
        assert one(guard).state == "failed_retryable"
        monkeypatch.undo()
        tools.refund("T-1", world, LINE, [])
    assert len(effects(world)) == 1


OWNER = """
import sys
from pathlib import Path
from agentguard import Guard
from tests import isolated_langchain
from tests import isolated_tools as tools
with Guard(sys.argv[1]).run("owner", run_id="r-1"):
    tools.stuck("T-1", Path(sys.argv[2]))
"""


def test_a_child_does_not_outlive_a_killed_owner(guard: Guard, world: Path) -> None:
    """The child of a killed owner ends at once; only then is the owner taken for dead."""
    pipe = world.parent / "pipe"
    os.mkfifo(pipe)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, guard.store.url, str(world)])
    with pipe.open("rb") as alive:  # opens when the body has begun
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert alive.read() == b""  # returns when the child and what it started are gone
    (doubt,) = Guard(guard.store.url).effects.list("in_doubt")
    assert doubt.doubt_reason == "owner_lost"


# A thread.


def abandoned(guard: Guard, **options: Any) -> tuple[Any, threading.Event, list[str]]:
    """Make a write that waits for a word beyond its deadline, and the list of what it did."""
    word, done = threading.Event(), list[str]()

    def slow(key: str) -> str:
        word.wait()
        if options.get("fails"):
            raise NoEffect("it was not sent")
        done.append(key)
        return f"done {key}"

    contract = tool_contract(effect="write", timeout=0.05, isolation="thread")
    reconcile = options.get("reconcile")
    return contract(idempotent(key="{key}", reconcile=reconcile)(slow)), word, done


def end_all_bodies(word: threading.Event) -> None:
    """Give the word and wait for the threads that waited for it."""
    waiting = [
        thread
        for thread in threading.enumerate()
        if thread.daemon and thread.name.startswith("Thread-")
    ]
    word.set()
    for thread in waiting:
        thread.join(30)


def test_a_thread_is_abandoned_at_its_deadline_and_settles_late(guard: Guard) -> None:
    """The caller is told of the doubt at the deadline; the thread's own late answer ends it."""
    tool, word, done = abandoned(guard)
    with guard.run("slow"):
        with pytest.raises(ToolTimeout):
            tool("T-1")
        assert (one(guard).state, one(guard).doubt_reason, done) == ("in_doubt", "timeout", [])
        end_all_bodies(word)
        assert tool("T-1") == "done T-1"
    assert (one(guard).state, done) == ("succeeded", ["T-1"])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_interrupted_caller_leaves_its_thread_to_settle(
    guard: Guard, kind: type[BaseException]
) -> None:
    """What a signal handler raises ends the waiting, not the thread, whose answer ends the doubt."""
    word = threading.Event()

    def handler(_number: int, _frame: object) -> None:
        raise kind

    @tool_contract(effect="write", timeout=30, isolation="thread", retry=Retry(on=(ValueError,)))
    @by_key
    def slow(key: str) -> str:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        word.wait()
        return f"done {key}"

    before = signal.signal(signal.SIGUSR1, handler)
    with guard.run("slow"):
        with pytest.raises(kind):
            slow("T-1")
        signal.signal(signal.SIGUSR1, before)
        assert (one(guard).state, one(guard).doubt_reason) == ("in_doubt", "cancelled")
        end_all_bodies(word)
        assert slow("T-1") == "done T-1"
    assert (one(guard).state, one(guard).fence) == ("succeeded", 1)


def test_a_late_failure_without_effect_lets_it_start_again(guard: Guard) -> None:
    """A thread that says late that nothing happened frees its key."""
    tool, word, _ = abandoned(guard, fails=True)
    with guard.run("slow"):
        with pytest.raises(ToolTimeout):
            tool("T-1")
        end_all_bodies(word)
        assert one(guard).state == "failed_retryable"
        with pytest.raises(NoEffect):
            tool("T-1")


def test_a_late_answer_does_not_overrule_a_person(guard: Guard) -> None:
    """Who ruled meanwhile has ruled; the late answer is kept as evidence."""
    tool, word, done = abandoned(guard)
    with guard.run("slow"), pytest.raises(ToolTimeout):
        tool("T-1")
    guard.effects.resolve(one(guard).id, "failed", by="dana", reason="I looked")
    end_all_bodies(word)
    assert done == ["T-1"]
    assert one(guard).state == "failed_final"
    assert one(guard).late["outcome"] == "succeeded"


def test_not_happened_is_not_believed_while_the_thread_may_still_act(guard: Guard) -> None:
    """A hook that finds nothing is not taken for a no as long as the abandoned body runs."""
    tool, word, done = abandoned(guard, reconcile=lambda _call: NotHappened())
    with guard.run("slow"):
        for _ in range(2):
            with pytest.raises((ToolTimeout, EffectInDoubt)):
                tool("T-1")
        end_all_bodies(word)
        assert tool("T-1") == "done T-1"
    assert done == ["T-1"]


def test_a_thread_sees_its_call_and_the_callers_context(guard: Guard) -> None:
    """`current_run().call` and context variables are there in the thread."""
    from contextvars import ContextVar

    from agentguard import current_run

    mine: ContextVar[str] = ContextVar("mine")

    @tool_contract(effect="write", timeout=30, isolation="thread")
    @by_key
    def look(key: str) -> str:
        call = current_run().call
        assert call.deadline is not None
        here = threading.current_thread() is threading.main_thread()
        return f"{mine.get()} {call.arguments['key']} {here}"

    mine.set("context")
    with guard.run("threads"):
        assert look("T-1") == "context T-1 False"


def test_a_threads_error_is_raised_to_the_caller(guard: Guard) -> None:
    """What the body raises in time is judged as if it had run here."""

    @tool_contract(effect="read", timeout=30, isolation="thread")
    def look(key: str) -> str:
        raise LookupError(key)

    with guard.run("threads"), pytest.raises(LookupError, match="T-1"):
        look("T-1")


def test_guard_errors_stay_guard_errors() -> None:
    """A timeout is a doubt, and a doubt is a refusal that no runtime retries by itself."""
    assert issubclass(ToolTimeout, EffectInDoubt)
    assert issubclass(EffectInDoubt, GuardError)
    assert issubclass(GuardError, RuntimeError)
