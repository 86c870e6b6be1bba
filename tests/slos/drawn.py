"""Service levels of every shape, for tests that must hold for all of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import get_args

from hypothesis import strategies as st

from agentguard.slos import SLIS, Burn, Counted, Demotion, Slo, Window, burns, wilson

NAMES = st.from_regex(r"[A-Za-z]([A-Za-z0-9_-]{0,20}[A-Za-z0-9])?", fullmatch=True)
SUBJECTS = st.from_regex(r"[^\W\d_][\w :'\"#{}-]{0,20}[\w\"'}]", fullmatch=True)
TARGETS = st.decimals("0.01", "0.999", places=3)
MINUTES = st.integers(5, 366 * 1440).map(lambda n: Window(seconds=n * 60))
LASTS = st.integers(10, 5000).map(lambda n: Window(last=n))
STAGES = st.sampled_from(["draft", "propose", "approve", None])
RUNS: tuple[str, ...] = ("success", "failure", "escalated", "budget_exceeded", "aborted")
CALLS: tuple[str, ...] = ("ok", "refuted", "error", "in_doubt")

HOW: st.SearchStrategy[Counted] = st.sampled_from(get_args(Counted))


@st.composite
def demotions(draw: st.DrawFn) -> Demotion | None:
    """Draw what follows."""
    stages = draw(STAGES), draw(STAGES)
    if stages == (None, None):
        return None
    after = draw(st.none() | st.integers(1, 999).map(lambda n: n * 60))
    return Demotion(*stages, after, draw(st.none() | st.integers(1, 50)))


def long_enough(window: Window, target: Decimal) -> Window:
    """Make a window of outcomes so long that it can show a breach, by trying."""
    last = window.last
    while last is not None and wilson(last, last)[0] <= 1 - target:
        last += 1 + last // 10
    return window if last is None else Window(last=last)


@st.composite
def slos(draw: st.DrawFn, windows: st.SearchStrategy[Window] = MINUTES | LASTS) -> Slo:
    """Draw a service level."""
    sli = draw(st.sampled_from(SLIS))
    is_tool = sli == "correctness"
    subject = draw(SUBJECTS)
    limits, target = st.decimals("0.01", "5000", places=2), draw(TARGETS)
    plain = Slo(
        draw(NAMES), sli, target=target, window=long_enough(draw(windows), target),
        workflow=None if is_tool else subject, tool=subject if is_tool else None,
        min_count=draw(st.integers(1, 10)),
        at_most=draw(limits) if sli in ("cost", "latency") else None,
        abandoned=None if is_tool else draw(st.none() | MINUTES.map(lambda w: w.seconds)),
        counts=draw(st.dictionaries(st.sampled_from(CALLS if is_tool else RUNS), HOW, max_size=3)),
        demote=draw(demotions()),
    )  # fmt: skip
    return with_rules(plain, draw(st.booleans()))


def with_rules(slo: Slo, own: bool) -> Slo:  # noqa: FBT001 - drawn
    """Give it rules of its own: the slowest of the default ones, a little slower."""
    if not own:
        return slo
    last = burns(slo)[-1]
    rule = Burn(last.long, last.short, (last.factor * Decimal("0.9")).normalize(), "page")
    return replace(slo, burn=(rule,))


def slos_by_time() -> st.SearchStrategy[Slo]:
    """Draw service levels over time."""
    return slos(MINUTES)
