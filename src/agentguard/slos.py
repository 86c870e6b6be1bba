"""Service levels: what counts as good, how much may be bad, and what few outcomes can tell."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal, localcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from ._burning import (
    Burn,
    Severity,
    Window,
    blind,
    default_burns,
    most,
    problem,
    shortened,
    span,
)
from ._wilson import DIGITS, bounds
from .autonomy import STAGES
from .errors import ConfigurationError
from .outcomes import RUN_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "SLIS",
    "TOOL_OUTCOMES",
    "Burn",
    "Counted",
    "Counts",
    "Demotion",
    "Fact",
    "Judged",
    "Judgement",
    "Severity",
    "Sli",
    "Slo",
    "State",
    "Window",
    "budget_left",
    "burn_rate",
    "burns",
    "judge",
    "outcome_of",
    "span",
    "wilson",
    "windows",
]

Sli = Literal["success", "correctness", "cost", "latency", "escalation"]
State = Literal["insufficient_data", "ok", "burning", "exhausted"]
Counted = Literal["good", "bad", "ignore"]

SLIS: Final[tuple[Sli, ...]] = ("success", "correctness", "cost", "latency", "escalation")
"""Correctness is of a tool, the others are of a workflow."""
TOOL_OUTCOMES: Final = (
    "ok", "refuted", "error", "in_doubt", "denied", "rejected", "duplicate_noop", "skipped_budget",
    "pending",
)  # fmt: skip
"""How a tool call comes out: `refuted` means that a verifier found its effect wrong."""
SETTLED: Final = TOOL_OUTCOMES[:4]
"""Of these a call can be counted: its body was started, and has ended."""
MEASURED: Final = ("cost", "latency")
"""These compare what a run took with `at_most`."""

SOONEST: Final = 60
"""Seconds before which silence says nothing of a run."""

_RUNS: Final[Mapping[str, Counted]] = MappingProxyType({
    "success": "good", "failure": "bad", "escalated": "bad", "budget_exceeded": "bad",
    "aborted": "ignore", "pending": "ignore",
})  # fmt: skip
_CALLS: Final[Mapping[str, Counted]] = MappingProxyType({
    "ok": "good", "refuted": "bad", "error": "bad", "in_doubt": "bad",
    **dict.fromkeys(("denied", "rejected", "duplicate_noop", "skipped_budget", "pending"), "ignore"),
})  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Demotion:
    """How far autonomy falls while a service level burns or is exhausted, and when it comes back.

    Attributes:
        burning: the stage while it burns; None leaves it.
        exhausted: the stage while its budget is used up; None leaves it.
        restore_after: seconds that it must have been well; None does not ask for it.
        restore_good: good outcomes without a bad one since; None does not ask for it.
    """

    burning: str | None = "approve"
    exhausted: str | None = "draft"
    restore_after: int | None = None
    restore_good: int | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """A service level: which share of what must be good, over what, and what follows if not.

    Attributes:
        name: letters, digits, `-` and `_`; how metrics, alerts and events call it.
        sli: what is looked at: one of `SLIS`.
        workflow: whose runs, or
        tool: whose calls.
        target: the share that must be good, above 0 and at most 1.
        window: over what.
        min_count: outcomes below which nothing is said.
        at_most: US dollars or seconds of a good run, of the slis cost and latency.
        abandoned: seconds after which a run of which nothing is heard counts as a failure; None: never.
        counts: outcome → good, bad or ignore, where it differs from the default.
        burn: the rules; none: the default ones, see `burns`.
        demote: what follows; None if nothing does.

    Raises:
        ConfigurationError: it could never say what it should; with the mend.
    """

    name: str
    sli: Sli
    _: KW_ONLY
    target: Decimal
    window: Window
    workflow: str | None = None
    tool: str | None = None
    min_count: int = 10
    at_most: Decimal | None = None
    abandoned: int | None = None
    counts: Mapping[str, Counted] = field(default_factory=dict[str, Counted], hash=False)
    burn: tuple[Burn, ...] = ()
    demote: Demotion | None = None

    def __post_init__(self) -> None:
        found = next(_problems(self), None)
        if found is not None:
            raise ConfigurationError(f"the service level {self.name!r} {found}")

    @property
    def budget(self) -> Decimal:
        """Return the share that may be bad."""
        return 1 - self.target

    @property
    def subject(self) -> str:
        """Return the name of its workflow or tool."""
        return self.workflow or self.tool or ""


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a run, or of a tool call, once it has come out.

    Attributes:
        outcome: one of `outcomes.RUN_OUTCOMES`, or of `TOOL_OUTCOMES`.
        usd: what it cost; None if that is not known.
        seconds: how long it took; None if that is not known.
        escalated: whether people were needed.
    """

    outcome: str
    usd: Decimal | None = None
    seconds: Decimal | None = None
    escalated: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Outcomes within a window."""

    good: int = 0
    bad: int = 0

    @property
    def valid(self) -> int:
        """Return how many count."""
        return self.good + self.bad

    @property
    def sli(self) -> Decimal | None:
        """Return the share that was good; None without outcomes."""
        return _divided(self.good, self.valid) if self.valid else None


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule, held against what was counted.

    Attributes:
        long: outcomes of the long window.
        short: outcomes of the short one.
        long_burn: how fast the budget burnt in the long window.
        short_burn: and in the short one.
        sure: whether the long window has enough outcomes to say that more is bad than may be.
        fires: whether it is broken.
    """

    burn: Burn
    long: Counts
    short: Counts
    long_burn: Decimal
    short_burn: Decimal
    sure: bool
    fires: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a service level stands.

    Attributes:
        state: insufficient_data, ok, burning or exhausted.
        counts: outcomes of its window.
        sli: the share that was good; None without outcomes.
        low: the share that is good at the least, 95 times in 100.
        high: and at the most.
        burn: how many times as fast as evenly the budget was spent over the window.
        budget_left: 1 is all of it; below 0 more was bad than may be.
        rules: each rule with what was counted.
        exhausts_in: seconds until the budget is used up at the fastest burn that is sure;
            None where it does not come to that, and for windows of outcomes.
        adapted: a sentence for each default rule whose factor was out of reach.
    """

    state: State
    counts: Counts
    sli: Decimal | None
    low: Decimal
    high: Decimal
    burn: Decimal
    budget_left: Decimal
    rules: tuple[Judged, ...]
    exhausts_in: Decimal | None
    adapted: tuple[str, ...]

    def firing(self, severity: Severity) -> tuple[Judged, ...]:
        """Return the rules of *severity* that are broken."""
        return tuple(rule for rule in self.rules if rule.fires and rule.burn.severity == severity)


def wilson(hits: int, count: int) -> tuple[Decimal, Decimal]:
    """Return the one-sided 95 % bounds of the share of which *hits* of *count* were seen."""
    return bounds(hits, count)


def burn_rate(counts: Counts, target: Decimal) -> Decimal:
    """Return how many times as fast as evenly the budget was spent; 1 uses it up exactly.

    Without outcomes nothing was spent. Where nothing may be bad, one bad outcome is without limit.
    """
    if not counts.bad:
        return Decimal(0)
    if target == 1:
        return Decimal("Infinity")
    return _divided(counts.bad, counts.valid * (1 - target))


def budget_left(counts: Counts, target: Decimal) -> Decimal:
    """Return the share of the error budget that is left; below 0 when more was bad than may be."""
    return _less_one(burn_rate(counts, target))


def _less_one(burn: Decimal) -> Decimal:
    with localcontext() as exact:
        exact.prec = DIGITS
        return 1 - burn


def _divided(part: int | Decimal, whole: int | Decimal) -> Decimal:
    with localcontext() as exact:
        exact.prec = DIGITS
        return Decimal(part) / Decimal(whole)


def burns(slo: Slo) -> tuple[Burn, ...]:
    """Return the rules of *slo*: its own, or the default ones, made reachable."""
    return slo.burn or default_burns(slo.window, slo.budget, slo.min_count)


def windows(slo: Slo) -> tuple[Window, ...]:
    """Return every window that has to be counted to judge *slo*, its own first."""
    pairs = [window for rule in burns(slo) for window in (rule.long, rule.short)]
    return tuple(dict.fromkeys([slo.window, *pairs]))


def outcome_of(slo: Slo, fact: Fact) -> Literal["good", "bad"] | None:
    """Return how *fact* counts for *slo*; None if it does not.

    What is not known counts as bad: an unknown price is not a low one.
    """
    default = (_CALLS if slo.sli == "correctness" else _RUNS).get(fact.outcome, "bad")
    if fact.outcome == "pending":
        return None
    said: Counted | None = slo.counts.get(fact.outcome)
    if said is None:
        is_judged = slo.sli in ("success", "correctness") or default == "ignore"
        said = default if is_judged else _measured(slo, fact)
    return None if said == "ignore" else said


def _measured(slo: Slo, fact: Fact) -> Literal["good", "bad"]:
    if slo.sli == "escalation":
        return "bad" if fact.escalated or fact.outcome == "escalated" else "good"
    took = fact.usd if slo.sli == "cost" else fact.seconds
    return "good" if took is not None and took <= (slo.at_most or 0) else "bad"


def judge(slo: Slo, counted: Callable[[Window], Counts]) -> Judgement:
    """Say how *slo* stands.

    Args:
        slo: the service level.
        counted: gives the outcomes of a window, of each of `windows(slo)`.
    """
    counts = counted(slo.window)
    rules = tuple(_judged(slo, rule, counted) for rule in burns(slo))
    low, high = bounds(counts.good, counts.valid)
    left = budget_left(counts, slo.target)
    return Judgement(
        state=_state(slo, counts, rules),
        counts=counts,
        sli=counts.sli,
        low=low,
        high=high,
        burn=burn_rate(counts, slo.target),
        budget_left=left,
        rules=rules,
        exhausts_in=_exhausts_in(slo, left, rules),
        adapted=tuple(_adapted(slo, rule.burn) for rule in rules if rule.burn.asked is not None),
    )


def _state(slo: Slo, counts: Counts, rules: tuple[Judged, ...]) -> State:
    if counts.valid < slo.min_count:
        return "insufficient_data"
    if _breached(slo, counts):  # more is bad than may be, so nothing of the budget is left
        return "exhausted"
    burning = any(rule.fires and rule.burn.severity == "page" for rule in rules)
    return "burning" if burning else "ok"


def _breached(slo: Slo, counts: Counts) -> bool:
    """Return whether it is sure, as far as so many outcomes tell, that more is bad than may be."""
    return counts.valid >= slo.min_count and bounds(counts.bad, counts.valid)[0] > slo.budget


def _judged(slo: Slo, rule: Burn, counted: Callable[[Window], Counts]) -> Judged:
    long, short = counted(rule.long), counted(rule.short)
    rates = burn_rate(long, slo.target), burn_rate(short, slo.target)
    sure = _breached(slo, long)
    fires = sure and all(_is_faster(slo, part, rule.factor) for part in (long, short))
    return Judged(rule, long, short, *rates, sure, fires)


def _is_faster(slo: Slo, counts: Counts, factor: Decimal) -> bool:
    # Multiplied, not divided: a burn of exactly the factor is not above it.
    with localcontext() as exact:
        exact.prec = DIGITS
        return counts.bad > factor * slo.budget * counts.valid


def _exhausts_in(slo: Slo, left: Decimal, rules: tuple[Judged, ...]) -> Decimal | None:
    pace = max((rule.long_burn for rule in rules if rule.sure), default=Decimal(0))
    if slo.window.last is not None or left <= 0 or pace <= 1:
        return None
    with localcontext() as exact:
        exact.prec = DIGITS
        return left * slo.window.size / pace


def _adapted(slo: Slo, rule: Burn) -> str:
    limit = most(slo.budget) or Decimal(0)
    return (
        f"the default factor {rule.asked:f} for {rule.long.text} is out of reach of a target of"
        f" {slo.target:f}, which burns at most {shortened(limit)} times as fast;"
        f" {rule.factor:f} is used"
    )


def _problems(slo: Slo) -> Iterator[str]:
    if _NAME.fullmatch(slo.name) is None:
        yield "needs a name of 1 to 63 letters, digits, - and _ that begins with a letter"
    if not 0 < slo.target <= 1:
        yield "needs a target above 0 and at most 1, such as 0.95"
        return
    yield from _subject_problems(slo)
    yield from _measure_problems(slo)
    if slo.min_count < 1 or (slo.window.last or slo.min_count) < slo.min_count:
        yield f"has min: {slo.min_count}; write at least 1 and at most the outcomes of its window"
    if too_short := blind(slo.window, slo.budget):
        yield f"has last: {slo.window.last}, which is no use: {too_short}"
    for rule in slo.burn:
        found = problem(rule, slo.window, slo.budget, slo.min_count)
        if found is not None:
            yield f"has the burn rule {rule.text}, which is no use: {found}"


def _subject_problems(slo: Slo) -> Iterator[str]:
    if (slo.workflow is None) == (slo.tool is None):
        yield "needs either a workflow or a tool, one of the two"
    elif (slo.sli == "correctness") != (slo.tool is not None):
        yield (
            f"has the sli {slo.sli} of {'a tool' if slo.tool else 'a workflow'}; correctness is of"
            " a tool, and success, cost, latency and escalation are of a workflow"
        )


def _measure_problems(slo: Slo) -> Iterator[str]:
    if (slo.sli in MEASURED) != (slo.at_most is not None):
        example = "such as 30s" if slo.sli == "latency" else 'such as "0.40"'
        mend = f"add it, {example}" if slo.at_most is None else "remove it"
        yield f"has {'no' if slo.at_most is None else 'an'} at_most with the sli {slo.sli}; {mend}"
    elif slo.at_most is not None and slo.at_most <= 0:
        yield "has an at_most that must be more than 0"
    if slo.abandoned is not None and (slo.tool is not None or slo.abandoned < SOONEST):
        yield "has an abandoned that is of no use; it is of a workflow, and at least a minute"
    yield from _count_problems(slo)
    said = (slo.demote.burning, slo.demote.exhausted) if slo.demote else ()
    if any(stage is not None and stage not in STAGES for stage in said):
        yield f"can demote to {', '.join(STAGES)}, and to nothing else"


def _count_problems(slo: Slo) -> Iterator[str]:
    known = SETTLED if slo.sli == "correctness" else RUN_OUTCOMES[:-1]
    for outcome, counted in slo.counts.items():
        if outcome == "pending":
            yield "counts pending, which is no end; remove it from counts"
        elif slo.sli == "correctness" and outcome in TOOL_OUTCOMES and outcome not in known:
            yield f"counts {outcome}, but such a call does not start; known: {', '.join(known)}"
        elif outcome not in known:
            yield f"counts {outcome!r}, which is no outcome; known: {', '.join(known)}"
        elif counted not in ("good", "bad", "ignore"):
            yield f"counts {outcome} neither as good nor as bad nor as ignore; write one of them"
