"""Artifacts are made once for each content, version and tenant, and found after that."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from pydantic import BaseModel

from agentguard import Guard, Principal, current_run, idempotent, tool_contract
from agentguard.artifacts import FLUSH_AFTER, Rate
from agentguard.caching import cached
from agentguard.errors import ConfigurationError, ContractViolation, StoreUnavailable
from agentguard.ledger import artifacts
from agentguard.testing import FakeClock, override
from tests import isolated_tools

PRICES = {"m": ("1000", "0")}


@pytest.fixture(name="clock")
def clock_of_a_test() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture(name="guard")
def configured_guard(clock: FakeClock) -> Iterator[Guard]:
    """A guard that functions find outside of any run."""
    guard = Guard("memory://", clock=clock, prices=PRICES)
    with override(guard):
        yield guard
    guard.close()


def counting(**said: Any) -> tuple[Any, list[Any]]:
    """A cached function, and what it was really called with."""
    calls: list[Any] = []

    options: dict[str, Any] = {"version": "p1", **said}

    @cached("summary", **options)
    def summarize(text: Any, words: int = 10) -> Any:
        calls.append(text)
        return {"text": text, "words": words}

    return summarize, calls


def told(guard: Guard, run_id: str = "r") -> list[dict[str, Any]]:
    """What the record of a run tells of artifacts."""
    return [dict(e.data) for e in guard.runs.events(run_id) if e.kind == "artifact"]


def rate(guard: Guard, kind: str = "summary") -> tuple[int, int]:
    """Hits and misses of a kind."""
    found = [r for r in guard.artifacts.rates() if r.kind == kind]
    return sum(r.hits for r in found), sum(r.misses for r in found)


# What is found, and what is made anew


def test_the_same_content_is_made_once(guard: Guard) -> None:
    """Also by name, and with what is the default."""
    summarize, calls = counting()
    first = summarize("a")
    assert [summarize(text="a"), summarize("a", words=10), summarize("a", 10)] == [first] * 3
    assert (calls, rate(guard)) == (["a"], (3, 1))


async def test_async_functions_are_the_same(guard: Guard) -> None:
    """They are awaited once, and what they made is found by all that follow."""
    calls = []

    @cached("embedding", version="e1")
    async def embed(text: str) -> list[float]:
        calls.append(text)
        await asyncio.sleep(0)
        return [0.1, 1e300, -0.0]

    assert [await embed("a"), await embed("a")] == [[0.1, 1e300, -0.0]] * 2
    assert (calls, rate(guard, "embedding")) == (["a"], (1, 1))


def test_changed_content_and_another_version_miss(guard: Guard) -> None:
    """Another argument, another default, another version: each is made for itself."""
    summarize, calls = counting()
    again, calls_again = counting(version="p2")
    summarize("a")
    summarize("b")
    summarize("a", words=11)
    again("a")
    assert (calls, calls_again, rate(guard)) == (["a", "b", "a"], ["a"], (0, 4))


class Colour(enum.Enum):
    """A choice."""

    RED = 1


@dataclass
class Point:
    """Two numbers."""

    x: Any
    y: int = 0


class Form(BaseModel):
    """One field."""

    x: Any


NOON = dt.datetime.fromisoformat("2026-01-01T12:00")
ALIKE: list[Any] = [
    1, 1.0, True, "1", Decimal(1), Decimal("1.0"), [1], (1,), {1}, frozenset({1}), {"1": 1}, {1: 1},
    None, "None", b"1", "31", bytearray(b"1"), Colour.RED, Point(1), Point("1"), Form(x=1),
    dt.date(2026, 1, 1), "2026-01-01", NOON, NOON.replace(tzinfo=dt.UTC),
    dt.timedelta(seconds=1), dt.time(1), uuid.UUID(int=1), str(uuid.UUID(int=1)), Path("1"),
    {"a": 1, "b": 2}, {"b": 2, "a": 1}, ["list", 1], [["list"], 1], 2**70, str(2**70), [], (), {},
]  # fmt: skip


def test_values_that_only_look_alike_are_told_apart(guard: Guard) -> None:
    """Types and the order of keys belong to the content: a function may look at them."""

    @cached("repr", version="1")
    def show(value: Any) -> str:
        return f"{type(value).__name__} {value!r}"

    for _ in range(2):
        assert [show(v) for v in ALIKE] == [f"{type(v).__name__} {v!r}" for v in ALIKE]
    assert rate(guard, "repr") == (len(ALIKE), len(ALIKE))


def test_functions_of_one_kind_do_not_get_each_others(guard: Guard) -> None:
    """The function belongs to what an artifact is made of."""

    @cached("k", version="1")
    def one(x: int) -> str:
        return f"one {x}"

    @cached("k", version="1")
    def two(x: int) -> str:
        return f"two {x}"

    assert (one(1), two(1), one(1), two(1)) == ("one 1", "two 1", "one 1", "two 1")
    assert rate(guard, "k") == (2, 2)


@pytest.mark.parametrize("where", ["memory", "server"])
def test_a_tenant_never_gets_another_tenants_artifact(
    request: pytest.FixtureRequest, where: str
) -> None:
    """The same content is made for each; outside of runs the guard's principal says whose it is."""
    url = "memory://" if where == "memory" else request.getfixturevalue("postgres_url")
    guard = Guard(url, principal=Principal(tenant="acme"))
    summarize, calls = counting()
    with override(guard):
        summarize("a")
        for tenant in ("acme", "other", "other"):
            with guard.run(principal=Principal(tenant=tenant)):
                summarize("a")
    assert calls == ["a", "a"]
    first, second = guard.artifacts.list()
    assert {first.tenant, second.tenant} == {"acme", "other"}
    assert first.digest != second.digest  # each tenant's hashes are keyed with its own secret
    assert [(r.tenant, r.hits, r.misses) for r in guard.artifacts.rates()] == [
        ("acme", 1, 1), ("other", 1, 1),
    ]  # fmt: skip
    assert [r.tenant for r in guard.artifacts.rates(tenant="other")] == ["other"]
    guard.close()


def test_a_key_says_what_the_result_depends_on(guard: Guard) -> None:
    """What is left out of it makes no difference; methods and other odd arguments need one."""
    calls = []

    class Reader:
        @cached("entities", version="1", key=lambda _self, text, **_: text.strip())
        def read(self, text: str, client: Any = None) -> list[str]:
            calls.append(client)
            return text.split()

    assert Reader().read(" a b", client=object()) == Reader().read("a b ", client=1) == ["a", "b"]
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (object(), "cached summary: the content of a object cannot be told: pass plain data"),
        ([lambda: 1], "the content of a function cannot be told"),
        ("\ud800", "what it is made of cannot be told"),
    ],
)
def test_content_that_cannot_be_told_is_refused(guard: Guard, value: Any, sentence: str) -> None:
    """Nothing is guessed, and nothing is made."""
    summarize, calls = counting()
    with pytest.raises(ContractViolation, match=sentence):
        summarize(value)
    assert (calls, rate(guard)) == ([], (0, 0))


def test_content_that_contains_itself_is_refused(guard: Guard) -> None:
    """It has no end."""
    summarize, _ = counting()
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ContractViolation, match="contains itself"):
        summarize(loop)
    assert rate(guard) == (0, 0)


def test_a_wrong_call_fails_as_it_would(guard: Guard) -> None:
    """A missing argument is the caller's error."""
    summarize, _ = counting()
    with pytest.raises(TypeError, match="text"):
        summarize()
    assert rate(guard) == (0, 0)


# What is kept


def test_exceptions_are_never_kept(guard: Guard) -> None:
    """A failure is made again until it is none."""
    calls = []

    @cached("k", version="1")
    def fragile() -> int:
        calls.append(1)
        if len(calls) == 1:
            msg = "broken"
            raise OSError(msg)
        return 5

    with pytest.raises(OSError, match="broken"):
        fragile()
    assert (fragile(), fragile(), len(calls), rate(guard, "k")) == (5, 5, 2, (1, 2))


def test_a_result_without_a_form_is_refused(guard: Guard) -> None:
    """What would not come back as itself is told at once, not at the first hit."""

    @cached("k", version="1")
    def odd() -> Any:
        return object()

    with pytest.raises(
        ContractViolation, match=r"cached k: the result cannot be kept \(a object has"
    ):
        odd()
    assert guard.artifacts.list() == []


def test_a_result_that_is_too_large_is_returned_and_not_kept(guard: Guard) -> None:
    """The record says so."""
    summarize, calls = counting(max_bytes=40)
    with guard.run(run_id="r"):
        assert summarize("x" * 100)["words"] == 10
        summarize("x" * 100)
        summarize("y")
    assert (len(calls), len(guard.artifacts.list())) == (3, 1)
    assert [fact.get("kept") for fact in told(guard)] == ["no: 125 bytes"] * 2 + [None]


def test_time_runs_out_by_the_stores_clock(guard: Guard, clock: FakeClock) -> None:
    """At its end an artifact is made anew, and then kept for as long again."""
    summarize, calls = counting(ttl="1h")
    summarize("a")
    clock.advance(3599)
    summarize("a")
    assert len(calls) == 1
    clock.advance(1)
    summarize("a")
    clock.advance(3599)
    summarize("a")
    assert len(calls) == 2
    [kept] = guard.artifacts.list()
    assert kept.expires_at == kept.made_at + dt.timedelta(hours=1)  # type: ignore[operator] # both are there


def test_of_two_callers_at_once_both_get_what_is_kept(guard: Guard) -> None:
    """Both may make it; whoever is first wins, and the other one's is dropped."""
    barrier, number = threading.Barrier(2), iter((1, 2))

    @cached("k", version="1")
    def slow() -> int:
        barrier.wait(5)
        return next(number)

    with ThreadPoolExecutor(2) as pool:
        made = [future.result() for future in [pool.submit(slow) for _ in range(2)]]
    assert made[0] == made[1] == slow()
    assert rate(guard, "k") == (1, 2)


def test_what_is_found_belongs_to_its_caller(guard: Guard) -> None:
    """Whoever changes a result changes nobody else's."""
    summarize, _ = counting()
    summarize("a")["text"] = "spoiled"
    summarize("a")["text"] = "spoiled"
    assert summarize("a")["text"] == "a"


def test_nothing_of_the_arguments_is_stored(tmp_path: Path) -> None:
    """Only a hash under the tenant's secret stands in the file, and the result."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db")

    @cached("length", version="1")
    def length(text: str) -> int:
        return len(text)

    with override(guard), guard.run():
        length("DE02120300000000202051")
    guard.close()
    assert all(
        b"DE021203" not in path.read_bytes() for path in tmp_path.glob("a.db*") if path.is_file()
    )


def test_a_result_that_repeats_what_is_sensitive_is_not_kept(guard: Guard) -> None:
    """What a tool declared sensitive is in no artifact of its run."""
    echo, calls = counting()

    @tool_contract(effect="read", sensitive=["iban"])
    def look(iban: str) -> Any:
        return echo(iban)["words"]

    with guard.run(run_id="r"):
        look("DE02120300000000202051")
        look("DE02120300000000202051")
    assert (len(calls), guard.artifacts.list()) == (2, [])
    assert told(guard)[0]["kept"] == "no: it repeats what is sensitive"


@pytest.mark.parametrize(
    "column", ["value = 'true'", "made_at = made_at + 1", "cost = 5", "tenant = 'other'"]
)
def test_a_damaged_row_is_never_believed(
    guard: Guard, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    """It is told, made anew and mended; a row of another tenant's is none of this one's."""
    summarize, calls = counting()
    summarize("a")
    guard.store.transact(lambda tx: tx.run(f"UPDATE artifacts SET {column}"))
    is_seen = "tenant" not in column
    assert [found.intact for found in guard.artifacts.list()] == [False]
    with guard.run(run_id="r"):
        assert [summarize("a")["text"] for _ in range(2)] == ["a", "a"]
    assert (calls, [fact.get("damaged") for fact in told(guard)]) == (
        ["a", "a"], [is_seen or None, None],
    )  # fmt: skip
    assert ("it is not as it was written" in caplog.text) is is_seen
    assert True in [found.intact for found in guard.artifacts.list()]


def test_a_row_moved_to_another_content_is_not_believed(guard: Guard) -> None:
    """The seal binds the value to what it was made of."""
    summarize, calls = counting()
    summarize("a")
    summarize("b")
    swap = "UPDATE artifacts SET value = (SELECT value FROM artifacts WHERE value LIKE '%\"b\"%')"
    guard.store.transact(lambda tx: tx.run(swap))
    assert summarize("a")["text"] == "a"
    assert calls == ["a", "b", "a"]


def test_without_its_store_a_function_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache that is not there costs money, not answers; it is told in the log."""
    guard, (summarize, calls) = Guard(f"sqlite:///{tmp_path}/a.db"), counting()
    with override(guard):
        summarize("a")
        with sqlite3.connect(f"{tmp_path}/a.db") as there:
            there.execute("DROP TABLE artifacts")
        assert summarize("a")["text"] == "a"
    assert len(calls) == 2
    assert "cached summary goes on without its store" in caplog.text
    guard.close()


# Runs


def pay(guard: Guard, tokens: int, model: str = "m") -> None:
    """Let the run that is entered here make a model call."""
    run = current_run()
    assert run.guard is guard
    call = run.model_started(model=model, messages=[])
    run.model_finished(call, input_tokens=tokens)


def test_the_record_tells_hits_misses_and_what_was_saved(guard: Guard) -> None:
    """What making it cost is what the run has spent meanwhile; a hit saves that."""

    @cached("k", version="7")
    def think(x: int) -> int:
        pay(guard, 1000)
        return x

    with guard.run(run_id="r"):
        pay(guard, 5)
        assert (think(1), think(1)) == (1, 1)
    assert told(guard) == [
        {"kind": "k", "version": "7", "result": "miss", "cost_nanos": 10**9},
        {"kind": "k", "version": "7", "result": "hit", "saved_nanos": 10**9},
    ]
    assert guard.artifacts.rates() == [Rate("default", "k", "7", 1, 1, Decimal(1))]
    assert guard.artifacts.rates()[0].share == Decimal("0.5")


def test_a_cost_that_is_not_known_is_not_zero(guard: Guard) -> None:
    """Without a price, or without anything spent, the record says that nobody knows."""

    @cached("k", version="1")
    def think(x: int) -> int:
        if x:
            pay(guard, 1000, "unpriced")
        return x

    with guard.run(run_id="r"):
        think(0)
        think(1)
    assert [fact["cost_nanos"] for fact in told(guard)] == [None, None]


@pytest.mark.parametrize(
    ("cost", "nanos"),
    [
        ("0.25", 250_000_000),
        (lambda made: Decimal(made["words"]), 10 * 10**9),
        (lambda _: None, None),
        (lambda _: -1, None),
        (lambda made: made["dollars"], None),
    ],
)
def test_a_declared_cost_counts(guard: Guard, cost: Any, nanos: int | None) -> None:
    """An amount, or what a callable says of the result; one that breaks loses nothing."""
    summarize, _ = counting(cost=cost)
    with guard.run(run_id="r"):
        summarize("a")
        summarize("a")
    assert [fact.get("cost_nanos", fact.get("saved_nanos")) for fact in told(guard)] == [nanos] * 2
    assert [found.cost for found in guard.artifacts.list()] == [nanos]


def test_it_is_told_on_the_step_of_the_tool_that_asks(guard: Guard) -> None:
    """Inside a guarded write the event stands on its step."""
    summarize, _ = counting()

    @tool_contract(effect="write")
    @idempotent(key="{name}")
    def file(name: str) -> str:
        return str(summarize(name)["text"])

    with guard.run(run_id="r"):
        file("a")
    steps = {e.kind: e.step for e in guard.runs.events("r")}
    assert steps["artifact"] == steps["step.started"] == 1


def test_a_hit_writes_nothing_of_its_own(guard: Guard) -> None:
    """Its event rides along with the run's next commit, its count with a later one."""
    summarize, _ = counting()
    with guard.run(run_id="r") as run:
        summarize("a")
        for _ in range(5):
            summarize("a")
        assert len(run.meter.waiting()) == 6
        assert told(guard) == []
    assert len(told(guard)) == 6


def test_counts_in_memory_are_written_after_so_many_lookups(guard: Guard) -> None:
    """A crash loses fewer than that, and nothing but counts."""
    summarize, _ = counting()
    summarize("a")
    seen = []
    for _ in range(FLUSH_AFTER):
        summarize("a")
        [(_, (hits, _misses, _saved))] = guard.store.read(artifacts.rates, None)
        seen.append(hits)
    assert (seen[0], seen[-2], seen[-1]) == (0, 0, FLUSH_AFTER)


def test_closing_the_guard_writes_the_counts(tmp_path: Path) -> None:
    """What was counted is there for the next process."""
    summarize, _ = counting()
    url = f"sqlite:///{tmp_path}/a.db"
    for _ in range(2):
        guard = Guard(url)
        with override(guard):
            summarize("a")
        guard.close()
    guard = Guard(url)
    assert rate(guard) == (1, 1)
    guard.close()


def test_counts_that_could_not_be_written_are_written_later(tmp_path: Path) -> None:
    """A store that fails for a while makes no hit rate wrong."""
    guard, (summarize, _) = Guard(f"sqlite:///{tmp_path}/a.db"), counting()
    with override(guard), sqlite3.connect(f"{tmp_path}/a.db") as there:
        summarize("a")
        there.execute("ALTER TABLE artifact_counts RENAME TO elsewhere")
        summarize("a")
        summarize("b")
        with pytest.raises(StoreUnavailable):
            guard.artifacts.flush()
        there.execute("ALTER TABLE elsewhere RENAME TO artifact_counts")
        assert rate(guard) == (1, 2)
    guard.close()


def test_in_a_process_of_its_own_it_only_makes(guard: Guard) -> None:
    """A tool with isolation="process" has no store; what it derives is made each time."""
    with guard.run():
        assert [isolated_tools.derived(key) for key in "ab"] == ["aa", "bb"]
    assert guard.artifacts.rates() == []


def test_a_forked_child_does_not_count_its_parents(tmp_path: Path) -> None:
    """Each process writes what it counted itself."""
    guard, (summarize, _) = Guard(f"sqlite:///{tmp_path}/a.db"), counting()
    with override(guard):
        summarize("a")
        summarize("a")
        child = os.fork()
        if child == 0:
            try:
                summarize("a")
                guard.artifacts.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert rate(guard) == (2, 1)
    guard.close()


def test_inside_an_open_transaction_it_only_makes(tmp_path: Path) -> None:
    """The body of a same_database tool holds the store's transaction; nothing is looked up."""
    guard, (summarize, calls) = Guard(f"sqlite:///{tmp_path}/a.db"), counting()

    @tool_contract(effect="write")
    @idempotent(key="{name}", same_database=True)
    def file(name: str) -> str:
        return str(summarize("a")["text"])

    with override(guard), guard.run():
        file("a")
        file("b")
    assert (len(calls), guard.artifacts.rates()) == (2, [])
    guard.close()


async def test_on_a_server_it_is_the_same(postgres_url: str) -> None:
    """On PostgreSQL two callers at once both get what is kept, and hits are counted."""
    guard, calls, both = Guard(postgres_url), [], asyncio.Barrier(2)

    @cached("k", version="1", ttl=60)
    async def slow(x: str) -> int:
        await both.wait()
        calls.append(x)
        return len(calls)

    with override(guard):
        async with guard.run(run_id="r"):
            made = await asyncio.gather(slow("a"), slow("a"))
            assert made[0] == made[1] == await slow("a")
    assert (len(calls), rate(guard, "k"), len(told(guard))) == (2, (1, 2), 3)
    assert guard.artifacts.prune(expired=True) == 0
    assert guard.artifacts.prune("k") == 1
    guard.close()


# Declaring


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"version": ""}, "version is a text"),
        ({"version": 1}, "version is a text"),
        ({"ttl": "soon"}, "write a number and a unit"),
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": True}, "ttl=True"),
        ({"max_bytes": 0}, "max_bytes=0"),
        ({"cost": "much"}, "'much' is not an amount"),
    ],
)
def test_odd_options_are_refused(said: dict[str, Any], sentence: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=sentence):
        counting(**said)


def test_tools_and_streams_are_refused() -> None:
    """A cache over a tool would skip its guard, and a stream cannot be kept."""

    @tool_contract(effect="read")
    def look() -> int:
        return 1

    def stream() -> Iterator[int]:
        yield 1

    for function, sentence in (
        (look, "is a guarded tool"),
        (stream, "gives a stream"),
        (5, "no func"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            cached("k", version="1")(function)  # type: ignore[type-var] # that is the point


def test_a_function_without_a_name_is_refused() -> None:
    """All lambdas of a module have one name, and would get each other's artifacts."""
    with pytest.raises(ConfigurationError, match="a lambda has no name to be kept under"):
        cached("k", version="1")(lambda x: x)


def test_a_cached_function_may_be_a_tool(guard: Guard) -> None:
    """Beneath the decorators of a read it only saves its making."""
    calls = []

    @tool_contract(effect="read")
    @cached("k", version="1")
    def look(x: int) -> int:
        """Look."""
        calls.append(x)
        return x

    for _ in range(2):
        with guard.run():
            look(1)
    assert calls == [1]


# Operators


def test_artifacts_are_pruned_by_age_kind_and_version(guard: Guard, clock: FakeClock) -> None:
    """Each condition that is given must hold; counts stay."""
    for version, ttl in (("1", None), ("2", 60)):
        summarize, _ = counting(version=version, ttl=ttl)
        summarize("a")

    @cached("other", version="1")
    def other() -> int:
        return 1

    clock.advance(120)
    other()
    prune = guard.artifacts.prune
    assert prune(older_than="1m", dry_run=True) == 2
    assert prune(expired=True, dry_run=True) == prune("summary", version="2", dry_run=True) == 1
    assert prune("nothing") == prune(tenant="nobody") == prune(older_than="1h") == 0
    assert [prune(expired=True), prune(older_than="1m"), prune()] == [1, 1, 1]
    assert (guard.artifacts.list(), rate(guard)) == ([], (0, 2))


def test_a_list_shows_no_values(guard: Guard) -> None:
    """Kind, version, size, cost, times and the run that made it."""
    summarize, _ = counting(cost="2")
    with guard.run(run_id="r"):
        summarize("a")
    [found] = guard.artifacts.list("summary")
    assert (found.size, found.cost, found.run_id, found.intact) == (26, 2 * 10**9, "r", True)
    assert found.expires_at is None
    assert guard.artifacts.list("other") == []


# Any value

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.decimals(allow_nan=False)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=2)
        | st.sets(st.integers() | st.text("ab"), max_size=3)
    ),
    max_leaves=8,
)


@trials(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
def test_what_is_found_is_what_is_made(guard: Guard, value: Any) -> None:
    """For every value: made, kept and found it is equal and of the same type."""

    def same(x: Any) -> Any:
        return [x, type(x).__name__]

    kept = cached("any", version="1")(same)
    assert [kept(value), kept(value)] == [same(value)] * 2
    assert type(kept(value)[0]) is type(value)
