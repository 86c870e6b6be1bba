"""A run on one page: who, how far, what it cost; then its steps as a waterfall or as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import dollars
from .autonomy import draft_hint
from .endings import ending_hints, ending_lines
from .output import STYLES, Column, Line, console, cut, padded, width
from .planview import progress, split
from .text import ago, breadth, count, escaped, instant, money, short, span, words
from .verdicts import verdict_lines
from .waterfall import (
    BAR_STYLES,
    LOST,
    LOST_STYLE,
    WAIT,
    WAIT_STYLE,
    WORK,
    Axis,
    attempt_bar,
    merged,
    runs_of,
    segments,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from ..model import RunInfo
    from ..record import Step
    from .loading import Page
    from .waterfall import Segment

_METER = 10
_WIDEST = 36
"""Cells of a step's name, of its cost, of how it ended."""
_NARROWEST = 12
"""Cells of the axis; a narrower terminal gets the table."""


def cost_of(run: RunInfo) -> str:
    """Return what a run cost; a plus says that a price was not known."""
    return money(run.spent_usd) + ("" if run.cost_complete else "+")


def header(page: Page) -> Iterator[Line]:
    """Yield who ran what, how far it is, and how much of its budget is used."""
    run = page.run
    again = f", part {run.part}" if run.part > 1 else ""
    tenant = f", tenant {escaped(run.tenant)}" if run.tenant != "default" else ""
    whose = f" on behalf of {escaped(run.on_behalf_of)}" if run.on_behalf_of else ""
    yield Line("run", f"{escaped(run.id)}  {escaped(run.workflow)}")
    yield Line("status", f"{run.status}{again}", run.status)
    yield Line("agent", f"{escaped(run.agent)}{whose}{tenant}")
    yield Line(
        "started", f"{instant(run.started_at)} ({ago(run.started_at, page.now)}), {_took(page)}"
    )
    for label, text, state in _budget(run):
        yield Line(label, text, state)
    yield from split(page.costs)
    yield from progress(page.drift)
    if run.error:
        yield Line("error", escaped(run.error), "failed")
    yield from ending_lines(run)


def _took(page: Page) -> str:
    run = page.run
    going = run.status in ("running", "waiting")
    ended = page.now if going else (run.finished_at or run.updated_at)
    took = span((ended - run.started_at).total_seconds())
    waited = _waited(page)
    people = f", of it {span(waited)} waiting for people" if waited else ""
    return (f"for {took} so far" if going else f"took {took}") + people


def _waited(page: Page) -> float:
    """Seconds in which the run waited for at least one person."""
    bars = [segments(step, page.now) for step in page.steps]
    waits = ((part.began, part.ended) for bar in bars for part in bar if part.kind == "wait")
    return sum(last - first for first, last in merged(waits))


def _budget(run: RunInfo) -> Iterator[tuple[str, str, str]]:
    limits = run.limits
    for label, used, limit in (
        ("steps", run.steps, limits.max_steps),
        ("model calls", run.model_calls, limits.max_model_calls),
        ("tool calls", run.tool_calls, limits.max_tool_calls),
    ):
        share = None if limit is None else used / (limit or 1)
        yield label, _meter(str(used), None if limit is None else str(limit), share), _state(share)
    spend = limits.max_spend
    used_usd = run.spent_usd + run.held_usd
    share = None if spend is None else float(used_usd / (dollars(spend) or 1))
    held = f", {money(run.held_usd)} of it held" if run.held_usd else ""
    known = "" if run.cost_complete else ", and calls without a known price"
    limit_usd = None if spend is None else money(dollars(spend))
    yield "cost", _meter(money(used_usd), limit_usd, share) + held + known, _state(share)


def _meter(used: str, limit: str | None, share: float | None) -> str:
    if share is None or limit is None:
        return used
    full = min(_METER, round(share * _METER))
    return f"{'■' * full}{'·' * (_METER - full)} {used} of {limit}"


def _state(share: float | None) -> str:
    if share is None or share < 0.8:  # noqa: PLR2004 - the last fifth is worth a colour
        return ""
    return "failed" if share >= 1 else "waiting"


def outcome_of(step: Step) -> str:
    """Return how a step stands, in a few words."""
    if step.outcome == "duplicate":
        first = step.duplicates[0]
        return f"duplicate of step {first.first_step}"
    if step.outcome == "refused":
        return f"refused: {words(step.refusal or 'no')}"
    if step.outcome == "in_doubt":
        return f"in doubt: {words(step.doubt or 'unknown')}"
    if step.outcome == "open":
        return "no end on record"
    return _decided(step) or words(step.outcome)


def _decided(step: Step) -> str:
    """Name the person where the outcome hangs on one."""
    said = [vote for question in step.questions for vote in question.votes]
    if step.outcome == "waiting":
        return "waits for a person"
    if step.outcome == "drafted":
        return "proposed to people" if step.questions[-1].stage == "propose" else "drafted"
    if step.outcome == "rejected" and said:
        return f"rejected by {escaped(said[-1].person)}"
    if step.outcome in ("approved", "succeeded") and said:
        people = [escaped(vote.person) for vote in said if vote.decision == "approve"]
        ready = "" if step.outcome == "succeeded" else ", not started"
        return f"approved by {' and '.join(people)}{ready}" if people else ""
    return ""


def note_of(step: Step) -> str:
    """Return what else is worth seeing in a list of steps."""
    notes = [count(len(step.attempts), "attempt")] if len(step.attempts) > 1 else []
    if step.duplicates and step.outcome != "duplicate":
        notes.append(f"{count(len(step.duplicates), 'duplicate')} served")
    if step.plan:
        notes.append("outside the plan" if step.plan == "outside" else step.plan)
    notes += [f"{escaped(v.verifier)} says no" for v in step.verdicts if not v.passed]
    notes += [f"ruled {words(r.ruling)}" for r in step.rulings]
    return ", ".join(notes)


def took_of(step: Step) -> str:
    """Return how long a step worked, waiting for people left out."""
    worked = step.worked().total_seconds()
    return span(worked) if worked or step.attempts else "-"


def step_cost(step: Step) -> str:
    """Return what a step cost, its own budgets included."""
    if step.cost_usd is None:
        return "unknown"
    moved = max((amount for _, _, amount in step.budgets), default=step.cost_usd)
    total = max(step.cost_usd, moved)
    return money(total) if total else "-"


def step_columns(page: Page) -> list[Column[Step]]:
    """Return the columns of a list of steps."""
    return [
        Column("step", lambda s: str(s.number), right=True),
        Column("kind", lambda s: s.kind, spare=3),
        Column("name", lambda s: escaped(s.name), flex=12),
        Column("outcome", outcome_of, state=lambda s: s.outcome, flex=18),
        Column("began", lambda s: instant(s.began_at), lambda s: f"{s.began_at:%H:%M:%S}", spare=2),
        Column("took", took_of, right=True, spare=1),
        Column("waited", lambda s: span(w) if (w := s.waited(page.now).total_seconds()) else "-",
               right=True, spare=4),
        Column("cost", step_cost, right=True),
        Column("note", note_of, flex=6),
    ]  # fmt: skip


# The waterfall.


def draw(page: Page) -> bool:
    """Draw the waterfall; return False where the terminal is too narrow for one."""
    rows = [row for step in page.steps for row in _rows(step, page)]
    most = max(_WIDEST, width() * 2 // 5)
    texts = zip(*((row.name, row.cost, row.end) for row in rows), strict=True)
    sizes = [min(max(map(breadth, column)), most) for column in texts]
    axis = Axis([row.bar for row in rows], width() - sum(sizes) - 6)
    if axis.width < _NARROWEST:
        return False
    screen = console()
    ruler = _Row("", (), "", "", "")
    for line in [
        _line(ruler, [(axis.ruler(), "dim")], sizes),
        *(_line(row, runs_of(axis.bar(row.bar)), sizes) for row in rows),
    ]:
        screen.print(line, no_wrap=True, crop=True)
    return True


@dataclass(frozen=True)
class _Row:
    name: str
    bar: Sequence[Segment]
    cost: str
    end: str
    style: str


def _rows(step: Step, page: Page) -> Iterator[_Row]:
    """A row a step; where its body was started more than once, a row for each start below it."""
    mark = " ✎" if step.kind == "write" else ""
    cost, notes = step_cost(step), note_of(step)
    yield _Row(
        f"{step.number:>3} {escaped(step.name)}{mark}", segments(step, page.now),
        "" if cost == "-" else cost, outcome_of(step) + (f", {notes}" if notes else ""),
        STYLES.get(step.outcome, ""),
    )  # fmt: skip
    for attempt in step.attempts if len(step.attempts) > 1 else ():
        bar = [attempt_bar(step, attempt, page.now)]
        said = attempt.outcome or "executing"
        error = f": {escaped(attempt.error)}" if attempt.error else ""
        name = f"    └ attempt {attempt.number}"
        yield _Row(name, bar, "", f"{words(said)}{error}", STYLES.get(said, "dim"))


def _line(row: _Row, bar: Sequence[tuple[str, str]], sizes: Sequence[int]) -> Text:
    from rich.text import Text

    name, cost, end = sizes
    line = Text(f"{padded(cut(row.name, name), name)}  ")
    for text, colour in bar:
        line.append(text, colour)
    line.append(f"  {padded(cut(row.cost, cost), cost, right=True)}  ")
    return line.append(cut(row.end, end), row.style)


def legend(page: Page) -> Text:
    """Return what the bars mean."""
    from rich.text import Text

    kinds = {step.kind for step in page.steps} - {"other"}
    line = Text("    ")
    for kind, style in BAR_STYLES.items():
        if kind in kinds:
            line.append(f"{WORK} ", style).append(
                f"{kind}{' ✎' if kind == 'write' else ''}   ", "dim"
            )
    if any(step.questions for step in page.steps):
        line.append(f"{WAIT} ", WAIT_STYLE).append("waiting for people   ", "dim")
    if any(attempt.lost for step in page.steps for attempt in step.attempts):
        line.append(f"{LOST} ", LOST_STYLE).append("process lost", "dim")
    return line


def hints(page: Page) -> Iterator[Line]:
    """Yield what a person can do next."""
    yield from ending_hints(page)
    for verdict in page.verdicts:
        yield from verdict_lines(verdict)
    for stop in page.stops:
        what = f"{escaped(stop.what)}: " if stop.what else ""
        used = f" is {escaped(stop.limit)} and {escaped(stop.used)} is used" if stop.limit else ""
        yield Line(
            "refused", f"{what}{escaped(stop.budget)}{used}, so a call was not started", "failed"
        )
    for step in page.steps:
        if step.outcome == "waiting":
            name = short(step.questions[-1].approval_id)
            yield Line("waits", f"step {step.number}: agentguard approvals show {name}", "waiting")
        elif step.outcome in ("drafted", "approved") and step.questions[-1].stage:
            yield draft_hint(step)
        elif step.outcome == "approved":
            yield Line("approved", f"step {step.number} starts when the run goes on", "approved")
        elif step.outcome == "refuted":
            back = f"agentguard runs rollback {escaped(page.run.id)} --step {step.number}"
            yield Line("refuted", f"step {step.number} stands, not confirmed: {back}", "failed")
        elif step.outcome == "in_doubt":
            name = short(step.key)
            yield Line(
                "in doubt", f"step {step.number}: agentguard effects show {name}", "in_doubt"
            )
