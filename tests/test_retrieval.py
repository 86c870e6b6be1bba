"""A guarded retrieval is a read whose record says what was found, without a word of the texts."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentguard import (
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    ContractViolation,
    ForbiddenAction,
    Guard,
    LoopDetected,
    PermissionDenied,
    Principal,
    RateLimited,
    Retry,
    RunHalted,
    config,
)
from agentguard.cli import main
from agentguard.hosting import guarded_retrieval
from agentguard.record import Retrieved, Step, fold


@dataclass
class Page:
    """What a runtime's retriever returns."""

    name: str | None
    text: str | bytes | None
    likeness: float | None = None


PAGES = [Page("kb-7", "Refunds take five days.", 0.91), Page("kb-2", "Größe zählt", 0.5)]


def pages(result: Iterable[Page]) -> list[Mapping[str, Any]]:
    """Read a runtime's own result."""
    return [{"id": p.name, "score": p.likeness, "text": p.text} for p in result]


@pytest.fixture(name="store")
def store_file(tmp_path: Path) -> Path:
    """Where the store of a test is."""
    return tmp_path / "a.db"


@pytest.fixture(name="guard")
def guard_of_a_test(store: Path) -> Iterator[Guard]:
    """A guard of its own."""
    guard = Guard(f"sqlite:///{store}")
    yield guard
    guard.close()


def searching(guard: Guard, found: Any = None, **policy: Any) -> Callable[..., Any]:
    """A guarded search that finds *found*, or the two pages."""

    def look_up(query: str) -> Any:
        if isinstance(found, Exception):
            raise found
        return PAGES if found is None else found

    return guarded_retrieval(guard, look_up, name="search", documents=pages, **policy)


def asynchronous(guard: Guard, **policy: Any) -> Callable[..., Any]:
    """The same search on an event loop."""

    async def look_up(query: str) -> Any:
        return PAGES

    return guarded_retrieval(guard, look_up, name="search", documents=pages, **policy)


def sha(text: str) -> str:
    """What `sha256sum` says of a text file."""
    return hashlib.sha256(text.encode()).hexdigest()


def all_bytes(store: Path) -> bytes:
    """Everything that the store has on disk."""
    return b"".join(
        path.read_bytes() for path in store.parent.glob(f"{store.name}*") if path.is_file()
    )


def step_of(guard: Guard, run_id: str = "r") -> Step:
    """The one step of a run."""
    (step,) = fold(guard.runs.events(run_id))
    return step


FOUND = (
    Retrieved("kb-7", "0.91", sha("Refunds take five days.")),
    Retrieved("kb-2", "0.5", sha("Größe zählt")),
)


@pytest.mark.parametrize("policy", [{}, {"max_calls": 5}], ids=["plain", "budgeted"])
def test_the_record_says_what_was_retrieved(guard: Guard, policy: dict[str, Any]) -> None:
    """Ids, scores and hashes stand in the chain, best first; the caller gets its own result."""
    search = searching(guard, **policy)
    with guard.run(run_id="r"):
        assert search(query="How long?") is PAGES
    step = step_of(guard)
    assert step.retrieved == FOUND
    assert (step.kind, step.outcome, step.arguments) == (
        "read",
        "succeeded",
        {"query": "How long?"},
    )
    assert guard.runs.verify("r") is None


def test_an_async_retrieval_is_recorded_alike(guard: Guard) -> None:
    """Sync and async are one implementation."""
    search = asynchronous(guard)

    async def ask() -> Any:
        async with guard.run(run_id="r"):
            return await search(query="How long?")

    assert asyncio.run(ask()) is PAGES
    assert step_of(guard).retrieved == FOUND


def test_a_retrieval_is_one_event(guard: Guard) -> None:
    """The event `retrieved` tells that the read ended, what it was asked and what it found."""
    search = searching(guard)
    with guard.run(run_id="r"):
        search(query="How long?")
    kinds = [event.kind for event in guard.runs.events("r")]
    assert kinds == ["run.started", "retrieved", "run.finished"]


@pytest.mark.parametrize("policy", [{}, {"max_calls": 5}, {"when": "False"}])
def test_no_text_of_a_document_is_stored(guard: Guard, store: Path, policy: dict[str, Any]) -> None:
    """No byte of what was retrieved is in the store, however the retrieval is limited."""
    search = searching(guard, **policy)
    with guard.run(run_id="r"):
        search(query="How long?")
    guard.close()
    with sqlite3.connect(store) as database:
        dump = "\n".join(database.iterdump())
    assert "kb-7" in dump
    assert "Refunds" not in dump
    assert b"Refunds" not in all_bytes(store)


def test_the_query_is_kept_beside_the_chain(guard: Guard, store: Path) -> None:
    """What was asked can be erased, and the chain is still whole."""
    search = searching(guard)
    with guard.run(run_id="r"):
        search(query="about Jane Doe")
    with sqlite3.connect(store) as database:
        database.execute("UPDATE events SET salt = NULL, body = NULL")
    assert guard.runs.verify("r") is None
    step = step_of(guard)
    assert (step.arguments, step.retrieved) == (None, FOUND)


def test_a_sensitive_query_is_hidden(guard: Guard, store: Path) -> None:
    """A query that is declared sensitive is shown nowhere, not even inside a document's id."""
    search = searching(guard, [Page("users/Jane Doe", "text")], sensitive=["query"])
    with guard.run(run_id="r"):
        search(query="Jane Doe")
    step = step_of(guard)
    assert step.arguments == {"query": "[hidden]"}
    assert step.retrieved is not None
    assert step.retrieved[0].id == "users/[hidden]"
    assert b"Jane" not in all_bytes(store)


@pytest.mark.parametrize(
    ("page", "recorded"),
    [
        (Page(None, "x"), Retrieved(None, None, sha("x"))),
        (Page("img", None, 1), Retrieved("img", "1", None)),
        (Page("raw", b"x"), Retrieved("raw", None, sha("x"))),
        (Page("empty", ""), Retrieved("empty", None, sha(""))),
        (
            Page("half", "\ud800"),
            Retrieved("half", None, hashlib.sha256(b"\xed\xa0\x80").hexdigest()),
        ),
    ],
)
def test_what_a_document_lacks_is_none(guard: Guard, page: Page, recorded: Retrieved) -> None:
    """Documents may have no id, no score and no text; those they have are told."""
    search = searching(guard, [page])
    with guard.run(run_id="r"):
        search(query="?")
    assert step_of(guard).retrieved == (recorded,)


def test_finding_nothing_is_an_answer(guard: Guard) -> None:
    """An empty result is told from a read that is no retrieval."""
    search, plain = (
        searching(guard, []),
        guard.protect(lambda query: query, name="p", effect="read"),
    )
    with guard.run(run_id="r"):
        search(query="?")
        plain(query="?")
    first, second = fold(guard.runs.events("r"))
    assert (first.retrieved, second.retrieved) == ((), None)


def test_what_cannot_be_recorded_is_given_to_nobody(guard: Guard) -> None:
    """A result that `documents` cannot read is refused, and the refusal stands in the record."""
    search = searching(guard, ["no page"])
    sentence = r"search returned something that its `documents` cannot read \(AttributeError\)"
    with pytest.raises(ContractViolation, match=sentence), guard.run(run_id="r"):
        search(query="?")
    step = step_of(guard)
    assert (step.outcome, step.retrieved) == ("failed", None)


def test_a_retriever_that_fails_raises_its_own_error(guard: Guard) -> None:
    """The runtime sees the error it knows; nothing is said to have been retrieved."""
    search = searching(guard, ValueError("index is gone"))
    with pytest.raises(ValueError, match="index is gone"), guard.run(run_id="r"):
        search(query="?")
    assert (step_of(guard).outcome, step_of(guard).retrieved) == ("failed", None)


def test_a_retrieval_is_tried_again_as_declared(guard: Guard) -> None:
    """A read has no effect, so its failures may be tried again; what was found in the end counts."""
    tries = iter([ValueError("busy"), None])

    def look_up(query: str) -> list[Page]:
        if error := next(tries):
            raise error
        return PAGES

    search = guarded_retrieval(
        guard, look_up, name="search", documents=pages, retry=Retry(attempts=2, wait=0)
    )
    with guard.run(run_id="r"):
        search(query="?")
    step = step_of(guard)
    assert ([attempt.number for attempt in step.attempts], step.retrieved) == ([2], FOUND)


def test_a_budget_limits_retrievals(guard: Guard) -> None:
    """`max_calls` counts a retrieval as it counts every other call."""
    search = searching(guard, max_calls=2)
    with guard.run(run_id="r"):
        search(query="1")
        search(query="2")
        with pytest.raises(BudgetExceeded):
            search(query="3")


def test_parallel_retrievals_do_not_overshoot(guard: Guard) -> None:
    """Of eight at once, exactly the three that the budget has room for are made."""
    made: list[str] = []

    def look_up(query: str) -> list[Page]:
        made.append(query)
        return PAGES

    search = guarded_retrieval(guard, look_up, name="search", documents=pages, max_calls=3)
    with guard.run():

        def ask(number: int) -> None:
            with contextlib.suppress(BudgetExceeded):
                search(query=str(number))

        with ThreadPoolExecutor() as pool:
            for number in range(8):
                pool.submit(contextvars.copy_context().run, ask, number)
    assert len(made) == 3


def test_a_rate_limits_retrievals(guard: Guard) -> None:
    """`rate_limit` holds for reads, too."""
    search = searching(guard, rate_limit="1/day")
    with guard.run():
        search(query="1")
        with pytest.raises(RateLimited):
            search(query="2")


def test_a_retrieval_without_progress_is_a_loop(guard: Guard) -> None:
    """The same query again and again is refused by `max_repeats`."""
    search = searching(guard)
    with guard.run(max_repeats=2):
        search(query="same")
        search(query="same")
        with pytest.raises(LoopDetected):
            search(query="same")


def test_the_kill_switch_stops_retrievals(guard: Guard) -> None:
    """A switch on the retrieval's name is a switch on the retrieval."""
    search = searching(guard)
    guard.kill(tool="search", by="dana", reason="leaks")
    with guard.run(), pytest.raises(RunHalted, match="leaks"):
        search(query="?")


def test_a_scope_is_needed(guard: Guard) -> None:
    """Who lacks the scope retrieves nothing."""
    search = searching(guard, scopes=["kb:read"])
    who = Principal(scopes=frozenset({"other"}))
    with guard.run(principal=who), pytest.raises(PermissionDenied, match="kb:read"):
        search(query="?")


def test_people_may_have_to_decide(guard: Guard) -> None:
    """A retrieval under a rule waits; once approved it runs and is recorded like any other."""
    search = searching(guard, when="query == 'salaries'")
    with pytest.raises(ApprovalRequired) as stopped, guard.run(run_id="r"):
        search(query="salaries")
    guard.approvals.decide(stopped.value.approval.id, "approve", by="dana")
    with guard.run(run_id="r"):
        assert search(query="salaries") is PAGES
    assert step_of(guard).retrieved == FOUND


def test_the_configuration_speaks_by_name(store: Path) -> None:
    """What the file says about a tool of that name holds for the retrieval."""
    yaml = "agent_run:\n  tools:\n    search:\n      effect: {}\n{}"
    limited = config.loads(yaml.format("read", "      budget: {max_calls: 1}\n"))
    guard = Guard(f"sqlite:///{store}", config=limited)
    search = searching(guard)
    with guard.run():
        search(query="1")
        with pytest.raises(BudgetExceeded):
            search(query="2")
    guard.close()
    guard = Guard(f"sqlite:///{store}", config=config.loads(yaml.format("forbidden", "")))
    with guard.run(), pytest.raises(ForbiddenAction):
        searching(guard)(query="1")
    guard.close()


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"effect": "write"}, 'search retrieves, so it only reads: leave effect="write" out'),
        ({"key": "q:{query}"}, "leave the idempotency key out"),
        ({"top_k": 3}, "there is no option 'top_k'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_at_once(
    guard: Guard, policy: dict[str, Any], sentence: str
) -> None:
    """Before anything is retrieved, the sentence says what to change."""
    with pytest.raises(ConfigurationError, match=sentence):
        searching(guard, **policy)


def test_the_command_line_shows_what_was_retrieved(guard: Guard, store: Path) -> None:
    """`runs show --step` lists the documents; their texts are nowhere to be seen."""
    search = searching(guard, [*PAGES, Page(None, "x")])
    with guard.run(run_id="r"):
        search(query="How long?")
    arguments = ["--store", f"sqlite:///{store}", "runs", "show", "r", "--step", "1"]
    shown = CliRunner().invoke(main, arguments).output
    assert "3 documents; texts are not kept, their hashes are" in shown
    assert f"kb-7, score 0.91, sha256 {sha('Refunds take five days.')}" in " ".join(shown.split())
    assert f"without an id, sha256 {sha('x')}" in " ".join(shown.split())
    asked = CliRunner().invoke(main, [*arguments, "-o", "json"]).output
    (first, *_) = json.loads(asked)["retrieved"]
    assert first == {"id": "kb-7", "score": "0.91", "sha256": sha("Refunds take five days.")}


def test_a_long_list_of_documents_is_cut_for_people_only(guard: Guard, store: Path) -> None:
    """A terminal shows twenty documents and how many more there are; JSON has them all."""
    search = searching(guard, [Page(f"kb-{n}", "x") for n in range(23)])
    with guard.run(run_id="r"):
        search(query="?")
    arguments = ["--store", f"sqlite:///{store}", "runs", "show", "r", "--step", "1"]
    shown = CliRunner().invoke(main, arguments).output
    assert "… 3 more, see -o json" in shown
    assert "kb-20" not in shown
    asked = CliRunner().invoke(main, [*arguments, "-o", "json"]).output
    assert len(json.loads(asked)["retrieved"]) == 23
