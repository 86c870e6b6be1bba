"""Circuits, rationed retries and kill switches: tools that fail are left alone, by all processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agentguard import Guard, NoEffect, Principal, Retry, RunHalted, idempotent, tool_contract
from agentguard import config as configuration
from agentguard.cli import main
from agentguard.errors import CircuitOpen, ConfigurationError
from agentguard.ledger import circuits
from agentguard.model import Circuit, RetryBudget
from agentguard.testing import FakeClock
from agentguard.testing.stores.processes import PATIENCE, Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.postgres.server import Server

NUMBERS = itertools.count()
BREAKER = Circuit(failures=3, window="1m", cooldown="30s")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/agentguard.db"
    server: Server = request.getfixturevalue("postgres_server")
    return f"{server.url('postgres')}?schema=circuits{next(NUMBERS)}"


class Shop:
    """A guard on a store, and a backend that fails as long as it is told to."""

    def __init__(self, url: str, clock: FakeClock, **settings: Any) -> None:
        self.guard = Guard(url, clock=clock, config=configuration.Settings(**settings))
        self.error: BaseException | None = NoEffect("down")
        self.paid: list[str] = []
        self.inside: Callable[[], object] = lambda: None
        self._numbers = itertools.count()
        self.pay = self.tool()

    def tool(self, **options: Any) -> Any:
        """Declare the tool."""
        given: dict[str, Any] = {"effect": "write", "name": "pay", "circuit": BREAKER, **options}

        @tool_contract(**given)
        @idempotent(key="{ticket}")
        def pay(ticket: str) -> str:
            self.paid.append(ticket)
            self.inside()
            if self.error is not None:
                raise self.error
            return "ok"

        return pay

    def end(self, tenant: str = "acme", tool: Any = None) -> str:
        """Make one call with a key of its own; return how it ended."""
        who = Principal(agent="bot", tenant=tenant)
        ticket = f"T-{os.getpid()}-{id(self)}-{next(self._numbers)}"
        with self.guard.run("w", principal=who):
            try:
                return str((tool or self.pay)(ticket))
            except Exception as error:  # noqa: BLE001 - any end is told by its name
                return type(error).__name__

    def ends(self, count: int, **options: Any) -> list[str]:
        """Make calls one after another."""
        return [self.end(**options) for _ in range(count)]


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


@pytest.fixture
def shop(url: str, clock: FakeClock) -> Iterator[Shop]:
    """A shop whose backend is down."""
    opened = Shop(url, clock)
    yield opened
    opened.guard.close()


def kinds(shop: Shop, tenant: str = "acme") -> list[str]:
    """The events of circuits in the record, in order."""
    rows = shop.guard.store.read(
        lambda tx: list(tx.rows(
            "SELECT kind FROM events WHERE tenant = ? AND kind LIKE 'circuit.%' ORDER BY at, seq",
            (tenant,),
        ))
    )  # fmt: skip
    return [kind for (kind,) in rows]


# The circuit.


def test_a_tool_that_fails_is_left_alone(shop: Shop) -> None:
    """After so many failures in the window the next call is refused, and its body does not run."""
    assert shop.ends(5) == ["NoEffect"] * 3 + ["CircuitOpen"] * 2
    assert len(shop.paid) == 3
    assert kinds(shop) == ["circuit.opened"]


def test_the_refusal_says_how_long_to_wait(shop: Shop, clock: FakeClock) -> None:
    """Whoever is refused is told when somebody may try again."""
    shop.ends(3)
    clock.advance(10)
    acme, failed = Principal(tenant="acme"), "pay failed 3 times"
    with shop.guard.run("w", principal=acme), pytest.raises(CircuitOpen, match=failed) as refused:
        shop.pay("T-1")
    assert json.loads(refused.value.for_model())["retry_after"] == 20.0
    assert refused.value.retryable


def test_failures_count_within_the_window_only(shop: Shop, clock: FakeClock) -> None:
    """Three failures open it in any minute, and none that is longer."""
    for _ in range(4):
        assert shop.ends(2) == ["NoEffect"] * 2
        clock.advance(61)
    shop.end()
    clock.advance(40)
    assert shop.ends(3) == ["NoEffect"] * 2 + ["CircuitOpen"]


def test_a_success_of_the_probe_closes_it(shop: Shop, clock: FakeClock) -> None:
    """After the cooldown one call tries; if it works, everybody may call again."""
    shop.ends(3)
    clock.advance(31)
    shop.error = None
    assert shop.ends(3) == ["ok"] * 3
    assert kinds(shop) == ["circuit.opened", "circuit.probed", "circuit.closed"]


def test_a_failure_of_the_probe_opens_it_again(shop: Shop, clock: FakeClock) -> None:
    """One failed probe is enough for another cooldown."""
    shop.ends(3)
    clock.advance(31)
    assert shop.ends(2) == ["NoEffect", "CircuitOpen"]
    clock.advance(29)
    assert shop.end() == "CircuitOpen"
    clock.advance(2)
    assert shop.end() == "NoEffect"


def test_a_no_of_the_backend_closes_it(shop: Shop, clock: FakeClock) -> None:
    """A probe that is refused by the backend for good has found it at work."""
    shop.ends(3)
    clock.advance(31)
    shop.error = NoEffect("closed ticket", retryable=False)
    assert shop.ends(4) == ["NoEffect"] * 4


def test_one_probe_at_a_time(url: str, clock: FakeClock) -> None:
    """While a call tries whether the tool works again, no other starts, whoever makes it."""
    shops = [Shop(url, clock) for _ in range(4)]
    shops[0].ends(3)
    clock.advance(31)
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        if not begun.is_set():  # a second probe would end, and be found out
            begun.set()
            go_on.wait(PATIENCE)

    for shop in shops:
        shop.error, shop.paid, shop.inside = None, [], hold
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(shops[n % 4].end) for n in range(8)]
        assert begun.wait(PATIENCE)
        refused = list(itertools.islice(as_completed(calls, PATIENCE), 7))
        go_on.set()
        ends = sorted(call.result(PATIENCE) for call in calls)
    assert (len(refused), ends) == (7, ["CircuitOpen"] * 7 + ["ok"])
    assert sum(len(shop.paid) for shop in shops) == 1
    for shop in shops:
        shop.guard.close()


def test_a_probe_whose_process_died_is_taken_over(url: str, clock: FakeClock) -> None:
    """The next call probes, when the one that did will never tell."""

    def work(say: Callable[[Any], None]) -> None:
        shop = Shop(url, clock)
        shop.ends(3)
        clock.advance(31)

        def hold() -> None:
            say("probing")
            threading.Event().wait()

        shop.inside = hold
        shop.end()

    child = Child(work)
    assert child.hear() == "probing"
    clock.advance(31)
    shop = Shop(url, clock)
    shop.error = None
    assert shop.end() == "CircuitOpen"
    child.kill()
    clock.advance(600)
    assert shop.ends(2) == ["ok"] * 2
    child.close()
    shop.guard.close()


def test_it_stays_open_when_processes_come_and_go(url: str, clock: FakeClock) -> None:
    """The state is in the store."""
    first = Shop(url, clock)
    first.ends(3)
    first.guard.close()
    second = Shop(url, clock)
    assert second.end() == "CircuitOpen"
    second.guard.close()


def test_others_are_not_concerned(shop: Shop) -> None:
    """Another tenant's calls and another tool's go on."""
    shop.ends(4)
    assert shop.end(tenant="umbrella") == "NoEffect"
    assert shop.end(tool=shop.tool(name="refund")) == "NoEffect"


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (NoEffect("busy"), True),
        (RuntimeError("odd"), True),
        (NoEffect("closed", retryable=False), False),
        (KeyboardInterrupt(), False),
    ],
    ids=["no effect", "in doubt", "for good", "cancelled"],
)
def test_what_counts_as_a_failure(shop: Shop, error: BaseException, *, counts: bool) -> None:
    """A failure of the tool counts; a no of the backend does not, nor does whoever stops the call."""
    shop.error = error
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            shop.end()
    shop.error = None
    assert shop.end() == ("CircuitOpen" if counts else "ok")


def test_refusals_count_nothing(shop: Shop) -> None:
    """What never started says nothing of the tool."""
    shop.error = None
    with shop.guard.run("w", principal=Principal(tenant="acme"), max_steps=2):
        for _ in range(6):
            with pytest.raises(Exception, match=r"(?i)ticket|steps"):
                shop.pay()
    assert shop.end() == "ok"


def test_a_retry_stops_when_the_circuit_opens(shop: Shop) -> None:
    """A call that tries again is refused in the middle of its tries, like any other."""
    tool = shop.tool(retry=Retry(attempts=9, wait=0))
    assert shop.end(tool=tool) == "CircuitOpen"
    assert len(shop.paid) == 3


def test_a_read_may_have_a_circuit(shop: Shop) -> None:
    """A read with a circuit is refused as a write is."""

    @tool_contract(effect="read", circuit={"failures": 2, "window": "1m", "cooldown": "1m"})
    def look(name: str) -> str:
        raise OSError(name)

    with shop.guard.run("w"):
        for name in "ab":
            with pytest.raises(OSError, match=name):
                look(name)
        with pytest.raises(CircuitOpen):
            look("c")


def test_a_tool_without_a_circuit_leaves_no_trace(shop: Shop) -> None:
    """Nothing is written or asked for tools that declare none."""
    assert shop.ends(6, tool=shop.tool(circuit=None)) == ["NoEffect"] * 6
    assert shop.guard.store.read(lambda tx: list(tx.rows("SELECT * FROM circuits"))) == []


def test_the_configuration_gives_a_tool_its_circuit(tmp_path: Path, clock: FakeClock) -> None:
    """`circuits` names tools, decorated ones too, and what it says stands above the decorator."""
    settings = configuration.loads(
        "agent_run:\n  circuits:\n    pay: {failures: 1, window: 1m, cooldown: 2m}\n"
    )
    shop = Shop(f"sqlite:///{tmp_path}/a.db", clock)
    shop.guard.settings = settings
    assert shop.ends(2) == ["NoEffect", "CircuitOpen"]
    (row,) = shop.guard.store.read(circuits.opened)
    assert row["until"] - row["opened_at"] == 120_000_000
    shop.guard.close()


def test_a_circuit_of_no_tool_is_told(tmp_path: Path, clock: FakeClock) -> None:
    """A name that no tool has is a mistake in the file, told with its line."""
    settings = configuration.loads("agent_run:\n  circuits:\n    pai: {failures: 1}\n")
    shop = Shop(f"sqlite:///{tmp_path}/a.db", clock)
    shop.guard.settings = settings
    (problem,) = shop.guard.check([shop.pay])
    assert problem.startswith("agent_run.yaml:3: circuits.pai is the circuit of a tool that is not")
    shop.guard.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"failures": 0}, "failures must be from 1"),
        ({"window": "soon"}, "write a number and a unit"),
    ],
)
def test_a_circuit_that_is_none_is_refused(options: dict[str, Any], sentence: str) -> None:
    """What cannot be counted is refused where it is declared."""
    with pytest.raises(ConfigurationError, match=sentence):
        Circuit(**options)


# Retries.


def rationed(url: str, clock: FakeClock, percent: int = 10, burst: int = 2) -> Shop:
    """A shop whose tool tries twice, while there are retries left."""
    shop = Shop(url, clock, retries=RetryBudget(percent, burst))
    shop.pay = shop.tool(circuit=None, retry=Retry(attempts=2, wait=0))
    return shop


def test_retries_are_rationed(url: str, clock: FakeClock) -> None:
    """The burst is there at once, then a tenth of the calls."""
    shop = rationed(url, clock)
    shop.ends(5)
    assert len(shop.paid) == 5 + 2
    shop.ends(20)
    assert len(shop.paid) == 25 + 2 + 2
    shop.guard.close()


def test_the_ration_is_the_tenants(url: str, clock: FakeClock) -> None:
    """All processes and agents of a tenant share it; another tenant has its own."""
    first, second = rationed(url, clock), rationed(url, clock)
    first.ends(2)
    second.ends(2)
    assert (len(first.paid), len(second.paid)) == (4, 2)
    second.ends(1, tenant="umbrella")
    assert len(second.paid) == 4
    first.guard.close()
    second.guard.close()


def test_a_failure_that_is_not_retried_is_told(url: str, clock: FakeClock) -> None:
    """The record says that the ration was used up."""
    shop = rationed(url, clock, burst=0)
    with shop.guard.run("w") as run, pytest.raises(NoEffect):
        shop.pay("T-1")
    told = [e.data for e in shop.guard.runs.events(run.id) if e.kind == "attempt.failed"]
    assert [(data["tool"], data["not_retried"]) for data in told] == [("pay", "retry_budget")]
    shop.guard.close()


def test_reads_share_the_ration(url: str, clock: FakeClock) -> None:
    """A read that fails is tried again out of the same bucket."""
    shop, looks = rationed(url, clock, burst=1), []

    @tool_contract(effect="read", retry=Retry(attempts=5, wait=0))
    def look(name: str) -> str:
        looks.append(name)
        raise OSError(name)

    with shop.guard.run("w"), pytest.raises(OSError, match="a"):
        look("a")
    assert looks == ["a", "a"]
    shop.guard.close()


def test_retries_need_not_be_rationed(url: str, clock: FakeClock) -> None:
    """With `retry_budget: off` each call has all its tries."""
    settings = configuration.loads("agent_run:\n  retry_budget: off\n")
    shop = Shop(url, clock)
    shop.guard.settings = dataclasses.replace(shop.guard.settings, retries=settings.retries)
    shop.pay = shop.tool(circuit=None, retry=Retry(attempts=20, wait=0))
    shop.end()
    assert len(shop.paid) == 20
    shop.guard.close()


def test_the_file_says_how_many_retries() -> None:
    """`retry_budget` holds the share and the burst."""
    text = "agent_run:\n  retry_budget: {percent: 5, burst: 3}\n"
    assert configuration.loads(text).retries == RetryBudget(5, 3)
    assert configuration.Settings.empty().retries == RetryBudget(10, 10)


# Kill switches.


def test_no_start_of_another_process_passes_a_switch(url: str, clock: FakeClock) -> None:
    """Once the throw has returned, nothing starts, in whatever process and thread it was asked for."""

    def work(say: Callable[[Any], None]) -> None:
        shop = Shop(url, clock)
        shop.error = None
        with ThreadPoolExecutor(4) as pool:
            while not _stopped(ends := list(pool.map(lambda _: shop.end(), range(8)))):
                say(ends)
            say("stopped")
            say([shop.end() for _ in range(8)])

    child = Child(work)
    assert child.hear() == ["ok"] * 8
    shop = Shop(url, clock)
    shop.guard.kill(tool="pay", by="dana", reason="stop")
    started = _starts(shop)
    while child.hear() != "stopped":
        pass
    assert child.hear() == [RunHalted.__name__] * 8
    assert _starts(shop) == started
    child.close()
    shop.guard.close()


def _stopped(ends: list[str]) -> bool:
    return set(ends) == {RunHalted.__name__}


def _starts(shop: Shop) -> int:
    rows = shop.guard.store.read(lambda tx: list(tx.rows("SELECT fence FROM effects")))
    return sum(fence for (fence,) in rows)


# What operators see.


def test_open_circuits_are_listed_with_what_is_stopped(tmp_path: Path, clock: FakeClock) -> None:
    """`agentguard kill` names the tool, the tenant, the failures and when a call may try again."""
    shop = Shop(f"sqlite:///{tmp_path}/a.db", clock)
    shop.ends(3)
    shop.guard.close()
    told = CliRunner().invoke(main, ["--store", f"sqlite:///{tmp_path}/a.db", "kill", "--json"])
    (row,) = json.loads(told.stdout)
    assert (row["kind"], row["name"], row["by"]) == ("circuit", "pay", "tenant acme")
    assert row["reason"] == "3 failures; from 2026-01-05 09:00:30 UTC one call tries again"


def test_the_doctor_notes_open_circuits(tmp_path: Path, clock: FakeClock) -> None:
    """An open circuit is a note, not a failure of the store."""
    shop = Shop(f"sqlite:///{tmp_path}/a.db", clock)
    shop.ends(3)
    shop.guard.close()
    told = CliRunner().invoke(main, ["--store", f"sqlite:///{tmp_path}/a.db", "doctor", "--json"])
    checks = {row["check"]: row for row in json.loads(told.stdout)}
    assert checks["circuits"]["standing"] == "note"
    assert "pay of acme (open)" in checks["circuits"]["said"]


def test_a_late_answer_is_counted_once(url: str, clock: FakeClock) -> None:
    """A call that was late and then fails is one failure, not two."""
    shop, let_go = Shop(url, clock), threading.Event()
    shop.inside = lambda: let_go.wait(PATIENCE)
    pay = shop.tool(timeout=0.05, isolation="thread")
    assert shop.ends(2, tool=pay) == ["ToolTimeout"] * 2
    let_go.set()
    while shop.guard.effects.list(state="in_doubt", tenant="acme"):
        pass
    assert shop.end(tool=pay) == "NoEffect"
    assert kinds(shop) == ["circuit.opened"]
    shop.guard.close()


def test_without_a_store_the_failure_is_told(url: str, clock: FakeClock) -> None:
    """A read that fails while the store is gone is not tried again, and fails as it did."""
    shop, looks = rationed(url, clock), []

    @tool_contract(effect="read", retry=Retry(attempts=3, wait=0))
    def look(name: str) -> str:
        looks.append(name)
        shop.guard.close()
        raise OSError(name)

    with pytest.raises(OSError, match="a"), shop.guard.run("w"):
        look("a")
    assert looks == ["a"]
