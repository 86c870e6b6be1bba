"""What workflows spend, and what comes of it: work, rework and waiting, and the cost of a success.

Theory of operation. Every amount stands in one event of a run, and every event belongs to one of
three parts, so the parts always add up to what was spent:

- **waiting**: people's time, for decisions and besides.
- **rework**: what a second or later attempt cost, or one that failed; all of a step that was
  refuted or undone, and undoing it; model calls that failed, and those after a failed verdict until
  one passes; and everything in runs that failed, were halted or cancelled, people included.
- **work**: the rest.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ..durations import seconds
from ..ledger import spent as ledger
from ..ledger.compensating import REFUTED, UNDO, UNDONE
from ..ledger.costs import KIND
from .costs import part_of
from .folding import fold
from .totals import Amount, RunSpending, Spending, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..ledger.spent import SpentRun
    from ..model import Event
    from ..protocols import Store
    from .values import Step

_ENDED_BADLY = ("failed", "halted", "cancelled")
_NOT_OVER = ("open", "executing", "waiting", "drafted", "approved")


def spent(
    store: Store, *, workflow: str | None = None, since: str | None = None, last: int | None = None,
    tenant: str | None = None,
) -> list[Spending]:  # fmt: skip
    """Return what workflows spent, each tenant's by itself.

    Args:
        store: the store, such as `guard.store`.
        workflow: only this one; all by default.
        since: only runs that began within this time, such as `7d`.
        last: at most so many runs of each workflow, the newest.
        tenant: look only in this tenant.

    Raises:
        ConfigurationError: *since* is no duration.
    """
    found = runs_that_spent(store, workflow=workflow, since=since, last=last, tenant=tenant)
    groups: dict[tuple[str, str], list[RunSpending]] = {}
    for run in found:
        groups.setdefault((run.tenant, run.workflow), []).append(run)
    return [total(owner, name, runs) for (owner, name), runs in groups.items()]


def runs_that_spent(
    store: Store, *, workflow: str | None = None, since: str | None = None, last: int | None = None,
    tenant: str | None = None,
) -> Iterator[RunSpending]:  # fmt: skip
    """Yield runs with what they spent, by workflow, newest first; the arguments are those of `spent`."""
    within = None if since is None else int(seconds(since, "since") * 1_000_000)
    began = None if within is None else store.clock.now() - within
    for owner, name in store.read(ledger.workflows, tenant, began):
        if workflow in (None, name):
            for run_id in store.read(ledger.runs_of, owner, name, began, last):
                yield run_spending(store.read(ledger.spent_run, owner, run_id))


def run_spending(run: SpentRun) -> RunSpending:
    """Return what a run spent, by what its record says."""
    steps = {step.number: step for step in fold(run.events)}
    amounts = tuple(_amounts(run, steps))
    known = run.cost_complete and all(amount.nanos is not None for amount in amounts)
    looked = Counter(event.data["result"] for event in run.events if event.kind == "artifact")
    return RunSpending(
        run.tenant, run.run_id, run.workflow, run.status,
        dt.datetime.fromtimestamp(run.started_at / 1_000_000, dt.UTC),
        complete=known and (not run.held or run.status == "running"),
        completed=run.status == "succeeded",
        verified=run.status == "succeeded" and _is_verified(run.events, steps),
        amounts=amounts, artifacts=(looked["hit"], looked["miss"]),
        saved=sum(e.data.get("saved_nanos") or 0 for e in run.events if e.kind == "artifact"),
    )  # fmt: skip


def _amounts(run: SpentRun, steps: Mapping[int, Step]) -> Iterator[Amount]:
    again = _after_failed_verdicts(run.events, steps)
    for event in run.events:
        what, nanos = part_of(event.kind, event.data)
        if not what and event.kind != "model.called":
            continue
        step = steps.get(event.step or 0)
        found = _model(event, again) if event.kind == "model.called" else _other(event, step, what)
        badly = run.status in _ENDED_BADLY
        yield Amount(
            found.kind, found.name, nanos, "rework" if badly else found.part, found.retry,
            found.tokens,
        )  # fmt: skip


def _model(event: Event, again: set[int]) -> Amount:
    data = event.data
    vain = data.get("error") is not None or event.seq in again
    tokens = (data.get(f"{name}_tokens") or 0 for name in ("input", "cached", "output"))
    asked, cached, answered = tokens
    return Amount(
        "model", data["model"], None, "rework" if vain else "work",
        tokens=(asked, cached, answered),
    )  # fmt: skip


def _other(event: Event, step: Step | None, what: str) -> Amount:
    """Return an amount that is no model's: of a call, or besides calls."""
    retry, kind = what == "retry", what
    if retry:
        kind = event.data["kind"] if event.kind == KIND else "tool"
    name = step.name if step else event.data.get("tool", "")
    if kind == "human":
        return Amount(kind, name, None, "waiting")
    vain = retry or (step is not None and _in_vain(step))
    return Amount(kind, name, None, "rework" if vain else "work", retry)


def _in_vain(step: Step) -> bool:
    """Return whether the first attempt of a step is not what stands."""
    if _is_undo(step):
        return True
    if step.outcome in _NOT_OVER:
        return False
    first = all(attempt.number == 1 for attempt in step.attempts) and len(step.attempts) <= 1
    return step.outcome != "succeeded" or not first or _is_refuted(step)


def _is_undo(step: Step) -> bool:
    return (step.key or "").startswith(UNDO)


def _is_refuted(step: Step) -> bool:
    said = {verdict.verifier: verdict for verdict in step.verdicts}
    no = any(not verdict.passed and not verdict.unavailable for verdict in said.values())
    return step.outcome != UNDONE and (step.outcome == REFUTED or no)


def _after_failed_verdicts(events: Iterable[Event], steps: Mapping[int, Step]) -> set[int]:
    """Return the model calls that came after a failed verdict, and before one that passed.

    Verdicts that were written together are one word: a single no makes it a no. One that could not
    be had is none.
    """
    found: set[int] = set()
    failed, together = False, None
    words = {word.event.seq: word for word in _words(events, steps)}
    for event in events:
        word = words.get(event.seq)
        if word is not None and not event.data.get("unavailable"):
            failed = not word.passed or (failed and together == event.step)
        elif event.kind == "model.called" and failed:
            found.add(event.seq)
        together = event.step if event.kind == "verified" else -1
    return found


class _Word(NamedTuple):
    """A verdict: of which tool, by whom."""

    event: Event
    tool: str
    verifier: str
    passed: bool


def _words(events: Iterable[Event], steps: Mapping[int, Step]) -> Iterator[_Word]:
    """Yield what verifiers said; of plain reads the record has only that one was refused.

    That an undo undid says nothing for the outcome that it undoes.
    """
    refused: set[str] = set()
    for event in events:
        data, step = event.data, steps.get(event.step or 0)
        if step is not None and _is_undo(step):
            continue
        if event.kind == "verified":
            yield _Word(event, step.name if step else "", data["verifier"], data["passed"])
        elif data.get("effect") == "read" and data.get("error") == "VerificationFailed":
            refused.add(data["tool"])
            yield _Word(event, data["tool"], "", passed=False)
        elif data.get("outcome") == "succeeded" and data.get("tool") in refused:
            refused.remove(data["tool"])
            yield _Word(event, data["tool"], "", passed=True)


def _is_verified(events: Sequence[Event], steps: Mapping[int, Step]) -> bool:
    """Return whether what a run did is confirmed, as far as anybody was asked.

    Of one tool, a verifier's last word counts: a read that was refused may be made again. A write
    that was refuted has to be undone. Of the run as a whole, what was said before something of it
    was undone counts no more.
    """
    stands = [step for step in steps.values() if step.outcome != UNDONE]
    if any(step.outcome == "in_doubt" for step in stands):
        return False
    if any(step.kind == "write" and _is_refuted(step) for step in stands):
        return False
    gone = {step.number for step in steps.values() if step.outcome == UNDONE}
    changed = max((e.seq for e in events if e.data.get("outcome") == UNDONE), default=0)
    said = {(word.tool, word.verifier): word.passed for word in _words(events, steps)
            if word.event.step not in gone and (word.event.step or word.event.seq > changed)}  # fmt: skip
    return bool(said) and all(said.values())
