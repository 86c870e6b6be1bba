"""`check_idempotent`: what it does to a tool, and that it finds what is wrong with one."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ConfigurationError,
    Guard,
    Happened,
    NoEffect,
    NotHappened,
    Principal,
    Unknown,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.testing import Case, Report, check_idempotent
from tests.support import World

TICKET = {"ticket": "T-1"}


class Backend:
    """Pays; remembers it in a file; can be asked, and can be told to honour keys."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)

    def pay(self, ticket: str) -> str:
        """Pay, once more."""
        return self.world.happen(ticket)

    def pay_by_key(self, ticket: str) -> str:
        """Pay, unless this key was used."""
        paid = f"{ticket}-{current_run().call.idempotency_key}"
        return paid if paid in self.world.effects else self.world.happen(paid)

    def look(self, call: Any) -> Happened | NotHappened:
        """Answer what happened, truly."""
        paid = call.arguments["ticket"] in self.world.effects
        return Happened("paid, as was seen") if paid else NotHappened()


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """Give a backend that has done nothing yet."""
    return Backend(tmp_path / "journal")


def tool(body: Callable[[str], str], **key: Any) -> Any:
    """Make a sync write."""
    policy = {"key": "pay:{ticket}", **key}

    @tool_contract(effect="write")
    @idempotent(**policy)
    def pay(ticket: str) -> str:
        """Pay."""
        return body(ticket)

    return pay


def async_tool(body: Callable[[str], str], **key: Any) -> Any:
    """Make an async write."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", **key)
    async def pay(ticket: str) -> str:
        """Pay."""
        await asyncio.sleep(0)
        return body(ticket)

    return pay


def check(subject: Any, backend: Backend, **options: Any) -> Report:
    """Check a tool whose backend remembers in a file."""
    return check_idempotent(subject, TICKET, backend=backend.world.path, **options)


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    """Look up the verdict by what happened and by whether the hook could answer."""
    return {(case.what.partition(", before line")[0], case.hook): case.verdict
            for case in report.cases}  # fmt: skip


# What is done to a tool.


@pytest.mark.parametrize("make", [tool, async_tool])
def test_a_tool_without_a_hook_is_never_repeated(make: Any, backend: Backend) -> None:
    """Killed where nobody can know, the call stops in doubt; everywhere else it happens once."""
    report = check(make(backend.pay), backend)
    assert report.ok
    assert verdicts(report) == {
        ("delivered once", "-"): "once",
        ("delivered twice in one process", "-"): "once",
        ("delivered again by a resumed run", "-"): "once",
        ("delivered 4 times at once", "-"): "once",
        ("delivered again by another run", "-"): "once",
        ("killed before the run opens", "-"): "once",
        ("killed after the run opens", "-"): "once",
        ("killed before the start is written", "-"): "once",
        ("killed after the start is written", "-"): "in doubt",
        ("killed in the body", "-"): "in doubt",
        ("killed before the end is written", "-"): "in doubt",
        ("killed after the end is written", "-"): "once",
        ("killed before the run closes", "-"): "once",
        ("killed after the run closes", "-"): "once",
    }
    assert {len(case.seen) for case in report.doubts} == {0, 1}
    assert {case.left for case in report.doubts} == {("executing",)}


@pytest.mark.parametrize("make", [tool, async_tool])
def test_a_true_hook_leaves_no_doubt(make: Any, backend: Backend) -> None:
    """With the hook every case ends with one effect; without it the same kills end in doubt."""
    report = check(make(backend.pay, reconcile=backend.look), backend)
    assert report.ok
    assert report.doubts == ()
    without = [case for case in report.cases if case.hook == "off"]
    assert len(without) == sum(case.left == ("executing",) for case in report.cases) / 2
    assert {case.verdict for case in without} == {"in doubt"}


@pytest.mark.parametrize("where", [{}, {"isolation": "thread", "timeout": 60}])
def test_the_body_is_cut_before_each_of_its_lines(where: dict[str, Any], backend: Backend) -> None:
    """A body of three lines is killed three times, and what it had done by then stays done."""

    @tool_contract(effect="write", **where)
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        """Pay."""
        amount = f"{ticket}"
        done = backend.pay(amount)
        return done.upper()

    cut = [case for case in check(pay, backend).cases if "line" in case.what]
    assert [(case.what.rpartition(": ")[2], case.seen) for case in cut] == [
        ('amount = f"{ticket}"', ()),
        ("done = backend.pay(amount)", ()),
        ("return done.upper()", ("T-1",)),
    ]


def test_a_backend_that_honours_keys_leaves_no_doubt(backend: Backend) -> None:
    """With `retry_same_key` the body starts again and the backend drops the repeat."""
    subject = tool(backend.pay_by_key, on_doubt="retry_same_key", downstream_dedupe="1h")
    report = check(subject, backend)
    assert {case.verdict for case in report.cases} == {"once"}


def test_a_call_that_waits_for_people_is_approved(backend: Backend) -> None:
    """Kills around the decision are part of the report, and people decide whenever they are asked."""
    report = check(requires_approval(quorum=2)(tool(backend.pay)), backend)
    assert report.ok
    assert ("killed after a person's decision is written", "-") in verdicts(report)
    assert ("killed before a person's decision is written, time 2", "-") in verdicts(report)


@pytest.mark.parametrize("policy", [{"key": None, "per": "call"}, {"scope": "run"}])
def test_what_belongs_to_one_run_is_not_asked_of_another(
    policy: dict[str, Any], backend: Backend
) -> None:
    """A key that is one run's own is delivered again in that run only."""
    report = check(tool(backend.pay, **policy), backend)
    assert report.ok
    assert ("delivered again by another run", "-") not in verdicts(report)


def test_tools_that_one_cannot_decorate_are_checked(tmp_path: Path, backend: Backend) -> None:
    """What `Guard.protect` returns can be checked like a decorated function."""

    def pay(ticket: str) -> str:
        return backend.pay(ticket)

    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    assert check(guard.protect(pay, effect="write", key="pay:{ticket}"), backend).ok
    assert guard.effects.list() == []
    guard.close()


def test_it_runs_under_the_users_configuration(tmp_path: Path, backend: Backend) -> None:
    """A file's thresholds and the principal hold in every case."""
    seen = tmp_path / "who"

    @tool_contract(effect="write", facts={"refund_usd": "usd"})
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str, usd: Decimal) -> str:
        """Pay."""
        seen.write_text(f"{current_run().principal.agent} {current_run().call.approval_id}")
        return backend.pay(ticket)

    path = tmp_path / "agent_run.yaml"
    path.write_text("agent_run:\n  approvals:\n    refund_usd_over: 50\n")
    report = check_idempotent(
        pay, {"ticket": "T-1", "usd": Decimal(60)}, backend=backend.world.path, config=path,
        principal=Principal(agent="support"),
    )  # fmt: skip
    assert report.ok
    assert seen.read_text().startswith("support ap_")


def test_a_backend_that_cannot_be_emptied_gets_other_arguments(backend: Backend) -> None:
    """Arguments that are a function of the case's number make every case its own."""
    report = check_idempotent(
        tool(backend.pay, reconcile=backend.look),
        lambda number: {"ticket": f"T-{number}"},
        backend=lambda: backend.world.effects,
    )
    assert report.ok
    assert len(set(backend.world.effects)) >= len(report.cases) - len(report.doubts) - 5
    assert len(backend.world.effects) == len(set(backend.world.effects))


async def test_it_works_inside_a_running_event_loop(backend: Backend) -> None:
    """An async test can call it; the forks have a loop of their own."""
    assert check(async_tool(backend.pay), backend).ok


def test_it_leaves_the_process_as_it_was(tmp_path: Path, backend: Backend) -> None:
    """The tool keeps its hook, the guard around goes on, and no process or store is left."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    subject = tool(backend.pay, reconcile=backend.look)
    with guard.run("w"):
        check(subject, backend)
        assert guard.bind(subject.__agentguard__).reconcile == backend.look
        subject("T-2")
    assert [effect.state.value for effect in guard.effects.list()] == ["succeeded"]
    assert multiprocessing.active_children() == []
    guard.close()


# What it finds.


def test_a_key_that_is_new_each_time_is_found(backend: Backend) -> None:
    """A random value in the key makes every delivery another effect."""
    report = check(tool(backend.pay, key=lambda ticket: ticket + secrets.token_hex()), backend)
    assert not report.ok
    found = {case.what: case.detail for case in report.duplicates}
    assert (
        found["delivered twice in one process"]
        == "the backend saw 2 effects under 2 keys: T-1, T-1"
    )
    assert "killed after the end is written" in found


def test_a_key_that_differs_between_threads_is_found(backend: Backend) -> None:
    """The callers that come at once are threads of their own."""
    subject = tool(backend.pay, key=lambda ticket: f"{ticket} {threading.get_ident()}")
    found = [case.what for case in check(subject, backend).duplicates]
    assert found == ["delivered 4 times at once"]


def test_a_key_that_differs_between_runs_is_found(backend: Backend) -> None:
    """Another run asks for the same after every kill, too."""
    subject = tool(backend.pay, key=lambda ticket: f"{ticket} {current_run().id}")
    found = {case.what for case in check(subject, backend).duplicates}
    assert {"delivered again by another run", "killed after the end is written"} <= found


def test_a_hook_that_denies_what_happened_is_found(backend: Backend) -> None:
    """A hook that always says no makes duplicates of what happened before the kill."""
    report = check(tool(backend.pay, reconcile=lambda _: NotHappened()), backend)
    assert [(case.what, case.hook) for case in report.duplicates] == [
        ("killed before the end is written", "on")
    ]
    assert report.duplicates[0].detail == "the backend saw 2 effects: T-1, T-1"


def test_a_hook_that_claims_what_never_happened_is_found(backend: Backend) -> None:
    """A hook that always says yes makes callers believe in what the backend never saw."""
    report = check(tool(backend.pay, reconcile=lambda _: Happened("paid")), backend)
    assert {case.what.partition(",")[0] for case in report.lost} == {
        "killed after the start is written",
        "killed in the body",
    }
    assert report.lost[0].detail == "a caller was told 'paid', and the backend saw nothing"
    assert not report.ok


def test_a_hook_that_does_not_know_leaves_doubts(backend: Backend) -> None:
    """Doubts are no fault, and a test that wants none can say so."""
    report = check(tool(backend.pay, reconcile=lambda _: Unknown("backend is down")), backend)
    assert report.ok
    assert {case.hook for case in report.doubts} == {"on"}
    assert report.doubts[0].detail.startswith("EffectInDoubt: pay: it is not known")


def test_a_backend_that_promised_to_drop_repeats_and_does_not_is_found(backend: Backend) -> None:
    """`retry_same_key` over a backend that ignores keys shows as duplicates."""
    subject = tool(backend.pay, on_doubt="retry_same_key", downstream_dedupe="1h")
    assert [case.what for case in check(subject, backend).duplicates] == [
        "killed before the end is written"
    ]


def test_a_tool_that_fails_is_told_and_not_killed(backend: Backend) -> None:
    """If the call does not even work undisturbed, that is the whole report."""

    def fail(_ticket: str) -> str:
        raise NoEffect("no such ticket")

    report = check(tool(fail), backend)
    assert not report.ok
    assert [case.detail for case in report.cases] == ["a caller got NoEffect: no such ticket"]


def test_two_effects_of_one_call_are_told(backend: Backend) -> None:
    """A body that writes twice is a duplicate from the first delivery on."""
    report = check(tool(lambda ticket: backend.pay(ticket) + backend.pay(ticket)), backend)
    assert [case.what for case in report.duplicates] == ["delivered once"]


def test_a_process_that_ends_itself_is_told(backend: Backend) -> None:
    """A body that ends its process is a failure with the exit code."""

    def leave(ticket: str) -> str:
        backend.pay(ticket)
        os._exit(3)

    report = check(tool(leave), backend)
    assert report.failed[0].detail == "a process ended with 3; see its output"


def test_a_process_that_hangs_is_ended_and_told(backend: Backend) -> None:
    """A body that never ends is stopped after the patience that the test has."""

    def hang(ticket: str) -> str:
        threading.Event().wait()
        return backend.pay(ticket)

    report = check(tool(hang), backend, patience=0.5)
    assert report.failed[0].detail == "a process did not end in time and was stopped"


def test_a_body_that_does_something_else_each_time_is_told(
    tmp_path: Path, backend: Backend
) -> None:
    """A place that is not reached a second time was not tested, and the report says so."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        """Pay."""
        with contextlib.suppress(FileExistsError):
            (tmp_path / "first").mkdir()
            ticket = ticket.strip()
        return backend.pay(ticket)

    (case,) = check(pay, backend).failed
    assert case.what.endswith("ticket = ticket.strip()")
    assert case.detail.startswith("its process never came to this place again")


# What it refuses.


@pytest.mark.parametrize(
    ("subject", "options", "sentence"),
    [
        (len, {}, "len has no agentguard decorator; give it the decorated function"),
        (
            tool_contract(effect="read")(lambda ticket: ticket),
            {},
            "is no write; a read may happen as often as it likes",
        ),
        (tool(str), {"backend": list}, "give reset= to empty it, or arguments= as a function"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    subject: Any, options: Mapping[str, Any], sentence: str, backend: Backend
) -> None:
    """A tool or a backend that cannot be checked is refused with the sentence that mends it."""
    with pytest.raises(ConfigurationError, match=sentence):
        check_idempotent(subject, TICKET, **{"backend": backend.world.path, **options})


def test_a_backend_in_memory_is_refused() -> None:
    """What lives in the killed process cannot be counted, and that is said before anybody is killed."""
    seen: list[str] = []

    def pay(ticket: str) -> str:
        seen.append(ticket)
        return "paid"

    with pytest.raises(ConfigurationError, match="must outlive the process that wrote it"):
        check_idempotent(tool(pay), TICKET, backend=lambda: seen, reset=seen.clear)


def test_a_system_without_forks_is_told(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """Where no process can fork, one sentence says so."""

    def nowhere(method: str) -> Any:
        raise ValueError(f"cannot find context for {method!r}")

    monkeypatch.setattr(multiprocessing, "get_context", nowhere)
    with pytest.raises(
        ConfigurationError, match="this system cannot fork: run it on Linux or macOS"
    ):
        check(tool(backend.pay), backend)


# What is shown.


def test_a_report_is_a_table_with_the_faults_below() -> None:
    """Each case is a line, and each fault a sentence."""
    report = Report(
        "pay",
        (
            Case("delivered once", "on", (), ("T-1",), ("succeeded",), ("'ok'",), "once"),
            Case("killed in the body, before line 7: " + "x" * 80, "off", ("executing",), (),
                 ("in_doubt",), ("EffectInDoubt: ?",), "in doubt", "EffectInDoubt: ?"),
            Case("killed before the end is written", "on", ("executing",), ("T-1", "T-1"),
                 ("succeeded",), ("'ok'",), "DUPLICATE", "the backend saw 2 effects: T-1, T-1"),
        ),
    )  # fmt: skip
    cut = "killed in the body, before line 7: xxxxxxxxxxxxxxxxxxxxxxxxxxxx…"
    assert str(report).splitlines() == [
        "pay: 3 cases, 1 once, 1 in doubt, 1 DUPLICATE",
        f"{'what happened':64}  hook  left behind  backend saw  store says  verdict",
        f"{'delivered once':64}  on    -            1            succeeded   once",
        f"{cut}  off   executing    0            in_doubt    in doubt",
        f"{'killed before the end is written':64}  on    executing    2            succeeded   DUPLICATE",
        "DUPLICATE: killed before the end is written (hook on): the backend saw 2 effects: T-1, T-1",
    ]
    assert (report.ok, len(report.duplicates), report.doubts) == (False, 1, ())
