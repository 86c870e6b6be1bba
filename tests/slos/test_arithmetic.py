"""What is counted, how sure it is, and when a budget burns: against numbers worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.errors import ConfigurationError
from agentguard.slos import (
    Burn,
    Counts,
    Demotion,
    Fact,
    Judgement,
    Slo,
    Window,
    budget_left,
    burn_rate,
    burns,
    judge,
    outcome_of,
    wilson,
    windows,
)
from tests.slos.drawn import long_enough

# good, bad, target | share that is good, burn, budget left: fractions, by hand as in
#   burn = (bad / (good + bad)) / (1 - target), left = 1 - burn
# | Wilson's one-sided 95 % bounds of the share that is bad: the two roots x of
#   (bad/n - x)^2 = z^2 x (1 - x) / n, z = 1.6448536269514722, found by another program.
# By hand where nothing is bad: from 0 to z^2/(n + z^2) with z^2 = 2.705543; where all is bad:
#   from n/(n + z^2) to 1. So for 10 of 10: 10/12.705543 = 0.787058.
NOTHING = (None, "0", "1", "0", "1")
TABLE = [
    # no traffic: nothing is known, nothing is spent
    (0, 0, "0.95", *NOTHING),
    (0, 0, "1.0", *NOTHING),
    # fewer than 10
    (1, 0, "0.95", "1", "0", "1", "0", "0.730134051216"),
    (1, 0, "1", "1", "0", "1", "0", "0.730134051216"),
    (0, 1, "0.95", "0", "20", "-19", "0.269865948784", "1"),  # 1 / 0.05
    (2, 1, "0.95", "2/3", "20/3", "-17/3", "0.078265726334", "0.746466131719"),  # (1/3) / 0.05
    (4, 1, "0.9", "4/5", "2", "-1", "0.045962453881", "0.564707446578"),  # 0.2 / 0.1
    (5, 0, "0.9", "1", "0", "1", "0", "0.351116500765"),  # 2.705543 / 7.705543
    (3, 3, "0.5", "1/2", "1", "0", "0.221259986140", "0.778740013860"),  # 0.5 / 0.5
    (7, 2, "0.8", "7/9", "10/9", "-1/9", "0.076494737554", "0.496357217623"),  # (2/9) / 0.2
    (8, 1, "0.99", "8/9", "100/9", "-91/9", "0.025191472713", "0.376801264536"),
    (0, 9, "0.95", "0", "20", "-19", "0.768866480680", "1"),
    # from 10 on
    (10, 0, "0.95", "1", "0", "1", "0", "0.212941970083"),
    (9, 1, "0.9", "9/10", "1", "0", "0.022634908731", "0.347718667336"),  # used up exactly
    (8, 2, "0.9", "4/5", "2", "-1", "0.068557987738", "0.459207194313"),
    (0, 10, "0.8", "0", "5", "-4", "0.787058029917", "1"),  # 1 / 0.2: it burns no faster
    (19, 1, "0.95", "19/20", "1", "0", "0.011234816851", "0.196007236774"),
    (18, 2, "0.95", "9/10", "2", "-1", "0.033663223562", "0.261663046327"),
    (52, 0, "0.95", "1", "0", "1", "0", "0.049456477045"),  # the first n sure of 95 %
    (51, 1, "0.95", "51/52", "5/13", "8/13", "0.004301992430", "0.081713850883"),
    (95, 5, "0.95", "19/20", "1", "0", "0.024547363426", "0.099161085279"),
    (94, 6, "0.95", "47/50", "6/5", "-1/5", "0.031340629063", "0.111840965226"),
    (90, 10, "0.95", "9/10", "2", "-1", "0.060718667015", "0.160355509611"),
    (99, 1, "0.95", "99/100", "1/5", "4/5", "0.002234092833", "0.043581773534"),
    (50, 50, "0.9", "1/2", "5", "-4", "0.418847796113", "0.581152203887"),
    (33, 67, "0.335", "33/100", "134/133", "-1/133", "0.589072863044", "0.741970611889"),
    # nothing may be bad
    (20, 0, "1.0", "1", "0", "1", "0", "0.119157837361"),
    (19, 1, "1.0", "19/20", "Infinity", "-Infinity", "0.011234816851", "0.196007236774"),
    (0, 20, "1.0", "0", "Infinity", "-Infinity", "0.880842162639", "1"),
    # many
    (999, 1, "0.999", "999/1000", "1", "0", "0.000223123844", "0.004469722909"),
    (998, 2, "0.999", "499/500", "2", "-1", "0.000662066926", "0.006025383341"),
    (9990, 10, "0.999", "999/1000", "1", "0", "0.000597915530", "0.001672024673"),
    (1, 999, "0.5", "1/1000", "999/500", "-499/500", "0.995530277091", "0.999776876156"),
    (4999, 1, "0.9999", "4999/5000", "2", "-1", "0.000044619709", "0.000895980015"),
    (999999, 1, "0.999", "999999/1000000", "1/1000", "999/1000", "0.000000223092",
     "0.000004482438"),
]  # fmt: skip

YES, NO = True, False
MONTH = Window(seconds=28 * 86_400)
HUNDRED = Window(last=100)
ALWAYS = Burn(Window(last=50), Window(last=10), Decimal(2))


def slo(target: str, window: Window, *burn: Burn, min_count: int = 10) -> Slo:
    """Make a service level of a workflow."""
    return Slo(
        "refunds", "success", workflow="support", target=Decimal(target), window=window,
        burn=burn, min_count=min_count,
    )  # fmt: skip


def is_close(found: Decimal, expected: str) -> bool:
    """Compare to what a fraction or a rounded number says."""
    return found == Decimal(expected) if "Inf" in expected else near(found, Fraction(expected))


def near(found: Decimal, expected: Fraction) -> bool:
    """Compare to twelve places."""
    return abs(Fraction(found) - expected) < Fraction(6, 10**13)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_numbers_are_those_worked_out_by_hand(row: tuple[Any, ...]) -> None:
    """Share, burn rate, budget left and bounds are what paper and another program say."""
    good, bad, target, sli, burn, left, low, high = row
    counts = Counts(good, bad)
    assert counts.sli is None if sli is None else is_close(counts.sli or Decimal(0), sli)
    assert is_close(burn_rate(counts, Decimal(target)), burn)
    assert is_close(budget_left(counts, Decimal(target)), left)
    found_low, found_high = wilson(bad, counts.valid)
    assert is_close(found_low, low)
    assert is_close(found_high, high)


@pytest.mark.parametrize("row", [row for row in TABLE if row[0] + row[1]], ids=str)
def test_bounds_solve_the_equation_that_defines_them(row: tuple[Any, ...]) -> None:
    """Each bound is a root of Wilson's equation, put in as exact fractions."""
    good, bad, *_ = row
    n, z = good + bad, Fraction("1.6448536269514722")
    for bound in map(Fraction, wilson(bad, n)):
        assert abs((Fraction(bad, n) - bound) ** 2 - z**2 * bound * (1 - bound) / n) < 1e-40


def test_without_a_bad_outcome_the_bound_reaches_the_target_where_the_tables_say() -> None:
    """11, 25, 52 and 268 outcomes without a bad one are the first that are sure of these targets."""
    for target, first in (("0.8", 11), ("0.9", 25), ("0.95", 52), ("0.99", 268)):
        assert wilson(first, first)[0] >= Decimal(target) > wilson(first - 1, first - 1)[0]


@pytest.mark.parametrize(("n", "expected"), [(10, "0.0861"), (20, "0.0755"), (50, "0.0378")])
def test_few_outcomes_seldom_cry_wolf(n: int, expected: str) -> None:
    """With exactly as much bad as may be, so many in a hundred are called a breach by chance."""
    budget = Fraction(1, 20)
    chance = sum(
        comb(n, bad) * budget**bad * (1 - budget) ** (n - bad)
        for bad in range(n + 1)
        if wilson(bad, n)[0] > Decimal("0.05")
    )
    assert f"{float(chance):.4f}" == expected


# The state: what each window holds, by hand. For 0.95 the budget is 0.05.


@pytest.mark.parametrize(
    ("target", "window", "counted", "state", "why"),
    [
        ("0.95", HUNDRED, {}, "insufficient_data", "nothing came"),
        ("0.95", HUNDRED, {100: (0, 9)}, "insufficient_data", "9 are too few, all bad or not"),
        ("1.0", HUNDRED, {100: (0, 9)}, "insufficient_data", "also where nothing may be bad"),
        ("0.95", HUNDRED, {100: (10, 0)}, "ok", "10 are enough"),
        ("0.95", HUNDRED, {100: (9, 1), 50: (9, 1), 10: (9, 1)}, "ok", "1 of 10 proves nothing"),
        ("0.95", HUNDRED, {100: (95, 5)}, "ok", "used up, not sure that more is bad"),
        ("0.95", HUNDRED, {100: (91, 9)}, "exhausted", "9 of 100: at least 0.0534 > 0.05"),
        ("0.95", HUNDRED, {100: (92, 8)}, "ok", "8 of 100: at least 0.0458 < 0.05"),
        ("0.95", HUNDRED, {100: (93, 7), 50: (44, 6), 10: (8, 2)}, "burning",
         "6 of 50: burn 2.4, at least 0.064; 2 of 10: burn 4"),
        ("0.95", HUNDRED, {100: (93, 7), 50: (44, 6), 10: (9, 1)}, "ok",
         "1 of 10: burn 2, not above 2"),
        ("0.95", HUNDRED, {100: (93, 7), 50: (45, 5), 10: (5, 5)}, "ok",
         "5 of 50: burn 2, not above 2"),
        ("0.95", HUNDRED, {100: (93, 7), 50: (44, 6), 10: (10, 0)}, "ok", "it is over"),
        ("1.0", HUNDRED, {100: (99, 1)}, "exhausted", "one is too many where nothing may be bad"),
        ("1.0", HUNDRED, {100: (100, 0)}, "ok", "nothing is"),
        ("0.5", HUNDRED, {100: (40, 60)}, "exhausted", "60 of 100: at least 0.518 > 0.5"),
        ("0.5", HUNDRED, {100: (45, 55)}, "ok", "55 of 100: at least 0.468 < 0.5"),
    ],
)  # fmt: skip
def test_states_are_those_worked_out_by_hand(
    target: str, window: Window, counted: dict[int, tuple[int, int]], state: str, why: str
) -> None:
    """A state needs enough outcomes, certainty, and both windows of a rule above its factor."""
    rule = (ALWAYS,) if target == "0.95" else ()
    found = judge(slo(target, window, *rule), lambda w: Counts(*counted.get(w.size, (0, 0))))
    assert found.state == state, why


def test_a_ticket_does_not_make_it_burn() -> None:
    """Rules of severity ticket fire and leave the state as it is."""
    rule = Burn(Window(last=50), Window(last=10), Decimal(2), "ticket")
    found = judge(
        slo("0.95", HUNDRED, rule), lambda w: Counts(94, 6) if w.size == 100 else Counts(5, 5)
    )
    assert found.state == "ok"
    assert [fired.burn for fired in found.firing("ticket")] == [rule]
    assert found.firing("page") == ()


def test_a_month_has_the_rules_of_the_workbook() -> None:
    """30 days have 14.4, 6, 3 and 1; 28 days what 2, 5 and 10 % of theirs come to."""
    thirty = [rule.text for rule in burns(slo("0.99", Window(seconds=30 * 86_400)))]
    assert thirty == [
        "14.4x in 1h and 5m",
        "6x in 6h and 30m",
        "3x in 1d and 2h",
        "1x in 3d and 6h",
    ]
    month = burns(slo("0.99", MONTH))
    assert [f"{rule.factor:f}" for rule in month] == ["13.44", "5.6", "2.8", "1"]
    assert [rule.severity for rule in month] == ["page", "page", "ticket", "ticket"]


def test_other_periods_have_windows_to_their_scale() -> None:
    """A week has a quarter of a month's windows, in whole minutes, with the same factors."""
    week = burns(slo("0.99", Window(seconds=7 * 86_400)))
    assert [rule.text for rule in week] == [
        "14.4x in 14m and 1m", "6x in 84m and 7m", "3x in 336m and 28m", "1x in 1008m and 84m",
    ]  # fmt: skip


def test_the_last_outcomes_have_rules_by_number() -> None:
    """Half of the budget within a tenth, a quarter, a half; no window below what is enough."""
    assert [rule.text for rule in burns(slo("0.95", HUNDRED))] == [
        "5x in last 10 and last 5", "2x in last 25 and last 5", "1x in last 50 and last 10",
    ]  # fmt: skip
    assert [rule.text for rule in burns(slo("0.95", Window(last=12)))] == [
        "1x in last 10 and last 5"
    ]


def test_default_factors_out_of_reach_are_lowered_and_it_is_said() -> None:
    """A target of 0.9 burns at most 10 times as fast: 14.4 becomes 7.5, and the judgement says so."""
    found = judge(slo("0.9", Window(seconds=30 * 86_400)), lambda _: Counts(100, 0))
    assert [f"{rule.burn.factor:f}" for rule in found.rules] == ["7.5", "6", "3", "1"]
    assert found.adapted == (
        (
            "the default factor 14.4 for 1h is out of reach of a target of 0.9, which burns at most 10"
            " times as fast; 7.5 is used"
        ),
    )


@pytest.mark.parametrize(
    ("target", "factor", "is_refused", "highest"),
    [
        ("0.9", "14.4", YES, "10"), ("0.9", "10", YES, "10"), ("0.9", "9.99", NO, ""),
        ("0.8", "6", YES, "5"), ("0.95", "14.4", NO, ""), ("0.93", "14.4", YES, "14.28"),
        ("1", "1000", NO, ""),
    ],
)  # fmt: skip
def test_factors_that_can_never_be_reached_are_refused(
    target: str, factor: str, *, is_refused: bool, highest: str
) -> None:
    """Who names a factor of at least 1/(1 - target) is told the largest that there is."""
    rule = Burn(Window(seconds=3600), Window(seconds=300), Decimal(factor))
    if is_refused:
        with pytest.raises(ConfigurationError, match=f"choose a factor below {highest}$"):
            slo(target, MONTH, rule)
    else:
        assert burns(slo(target, MONTH, rule)) == (rule,)


def test_when_the_budget_ends_is_told() -> None:
    """With 0.8 left of 28 days at 4 times the pace it ends in 5.6 days."""
    rule = Burn(Window(seconds=3600), Window(seconds=300), Decimal(10))
    level = slo("0.95", MONTH, rule)
    found = judge(level, lambda w: Counts(990, 10) if w == MONTH else Counts(80, 20))
    assert found.budget_left == Decimal("0.8")  # 1 - 0.01/0.05
    assert found.exhausts_in == Decimal(483840)  # 0.8 * 28 d / (0.2/0.05)
    assert found.state == "ok"


@pytest.mark.parametrize(
    ("window", "hour"),
    [(MONTH, Counts(99, 1)), (MONTH, Counts(7, 2)), (MONTH, Counts(0, 0)), (HUNDRED, Counts(5, 5))],
)
def test_no_end_is_told_where_none_comes_in_sight(window: Window, hour: Counts) -> None:
    """A slow burn, too few outcomes and windows of outcomes have no time at which it ends."""
    found = judge(slo("0.95", window), lambda w: Counts(1000, 0) if w == window else hour)
    assert found.exhausts_in is None


# What counts


@pytest.mark.parametrize(
    ("sli", "fact", "counted"),
    [
        ("success", Fact("success"), "good"),
        ("success", Fact("failure"), "bad"),
        ("success", Fact("escalated"), "bad"),
        ("success", Fact("budget_exceeded"), "bad"),
        ("success", Fact("aborted"), None),
        ("success", Fact("pending"), None),
        ("success", Fact("unheard of"), "bad"),
        ("escalation", Fact("success"), "good"),
        ("escalation", Fact("success", escalated=True), "bad"),
        ("escalation", Fact("escalated"), "bad"),
        ("escalation", Fact("failure"), "good"),
        ("cost", Fact("success", usd=Decimal("0.40")), "good"),
        ("cost", Fact("success", usd=Decimal("0.400000001")), "bad"),
        ("cost", Fact("success", usd=None), "bad"),
        ("cost", Fact("failure", usd=Decimal("0.10")), "good"),
        ("cost", Fact("aborted", usd=Decimal(9)), None),
        ("latency", Fact("success", seconds=Decimal("0.4")), "good"),
        ("latency", Fact("success", seconds=Decimal("0.5")), "bad"),
        ("latency", Fact("success"), "bad"),
        ("correctness", Fact("ok"), "good"),
        ("correctness", Fact("refuted"), "bad"),
        ("correctness", Fact("error"), "bad"),
        ("correctness", Fact("in_doubt"), "bad"),
        ("correctness", Fact("denied"), None),
        ("correctness", Fact("rejected"), None),
        ("correctness", Fact("duplicate_noop"), None),
    ],
)
def test_outcomes_count_by_what_is_looked_at(sli: str, fact: Fact, counted: str | None) -> None:
    """Only ends count; what is not known counts as bad."""
    level = Slo(
        "a", sli, target=Decimal("0.9"), window=HUNDRED,  # type: ignore[arg-type] # a table's
        workflow=None if sli == "correctness" else "w", tool="t" if sli == "correctness" else None,
        at_most=Decimal("0.40") if sli in ("cost", "latency") else None,
    )  # fmt: skip
    assert outcome_of(level, fact) == counted


def test_what_an_outcome_counts_as_can_be_said() -> None:
    """What `counts` says goes before the default; that a pending run counts cannot be said."""
    level = Slo(
        "a", "success", workflow="w", target=Decimal("0.9"), window=HUNDRED,
        counts={"escalated": "ignore", "aborted": "bad", "budget_exceeded": "good"},
    )  # fmt: skip
    said = [outcome_of(level, Fact(word)) for word in ("escalated", "aborted", "budget_exceeded")]
    assert said == [None, "bad", "good"]
    with pytest.raises(ConfigurationError, match="counts pending, which is no end"):
        Slo("a", "success", workflow="w", target=Decimal("0.9"), window=HUNDRED,
            counts={"pending": "good"})  # fmt: skip


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"name": "a b"}, "needs a name of 1 to 63 letters"),
        ({"name": "a" * 64}, "needs a name of 1 to 63 letters"),
        ({"target": Decimal(0)}, "needs a target above 0 and at most 1"),
        ({"target": Decimal("1.01")}, "needs a target above 0 and at most 1"),
        ({"workflow": None}, "needs either a workflow or a tool"),
        ({"tool": "t"}, "needs either a workflow or a tool"),
        ({"sli": "correctness"}, "has the sli correctness of a workflow"),
        ({"workflow": None, "tool": "t"}, "has the sli success of a tool"),
        ({"sli": "cost"}, "has no at_most with the sli cost"),
        ({"at_most": Decimal(1)}, "has an at_most with the sli success; remove it"),
        ({"sli": "cost", "at_most": Decimal(0)}, "must be more than 0"),
        ({"target": Decimal("0.2"), "window": Window(last=10)}, "has last: 10, .* at least 11$"),
        ({"target": Decimal("0.5"), "window": Window(last=2), "min_count": 1}, "at least 3$"),
        (
            {
                "target": Decimal("0.2"),
                "burn": (Burn(Window(last=10), Window(last=5), Decimal(1)),),
            },
            "10 bad outcomes of 10 do not make it sure that more than 0.8 is bad",
        ),
        ({"abandoned": 59}, "it is of a workflow, and at least a minute"),
        ({"workflow": None, "tool": "t", "sli": "correctness", "abandoned": 60}, "of a workflow"),
        ({"min_count": 101}, "has min: 101; write at least 1"),
        ({"min_count": 0}, "has min: 0; write at least 1"),
        ({"counts": {"fine": "good"}}, "counts 'fine', which is no outcome"),
        ({"counts": {"failure": "so-so"}}, "neither as good nor as bad nor as ignore"),
        ({"demote": Demotion(burning="human")}, "can demote to draft, propose, approve, auto"),
        ({"burn": (Burn(MONTH, MONTH, Decimal(2)),)}, "must be of the kind of the window"),
        ({"burn": (Burn(Window(last=200), Window(last=5), Decimal(2)),)}, "longer than the window"),
        ({"burn": (Burn(Window(last=20), Window(last=30), Decimal(2)),)}, "than its long one"),
        ({"burn": (Burn(Window(last=9), Window(last=5), Decimal(2)),)}, "fewer outcomes than min"),
        ({"burn": (Burn(Window(last=20), Window(last=5), Decimal(0)),)}, "must be more than 0"),
    ],
)
def test_a_service_level_that_could_never_say_what_it_should_is_refused(
    said: dict[str, object], sentence: str
) -> None:
    """One sentence names the service level, what is wrong and the mend."""
    usual: dict[str, object] = {
        "name": "a", "sli": "success", "workflow": "w", "target": Decimal("0.9"), "window": HUNDRED,
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match=sentence):
        Slo(**{**usual, **said})  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize(
    ("seconds", "last"), [(None, None), (60, 60), (0, None), (None, 0), (-1, None)]
)
def test_a_window_is_time_or_outcomes(seconds: int | None, last: int | None) -> None:
    """A window is one of the two and is not empty."""
    with pytest.raises(ConfigurationError, match="either so many seconds or the last"):
        Window(seconds, last)


# Whatever comes

TARGETS = st.decimals("0.001", "1", places=3)
SIZES = st.one_of(
    st.integers(60, 366 * 86_400).map(lambda s: Window(seconds=s)),
    st.integers(1, 5000).map(lambda n: Window(last=n)),
)
NUMBERS = st.integers(0, 300)


@st.composite
def levels(draw: st.DrawFn) -> Slo:
    """Draw a service level with the default rules."""
    target = draw(TARGETS)
    window = long_enough(draw(SIZES), target)
    return slo(str(target), window, min_count=draw(st.integers(1, min(50, window.last or 50))))


@given(NUMBERS, NUMBERS)
def test_bounds_hold_what_was_seen(good: int, bad: int) -> None:
    """Bounds lie within 0 and 1, around the share that was seen, and rise with every hit."""
    n = good + bad
    low, high = wilson(bad, n)
    assert 0 <= low <= (Decimal(bad) / n if n else Decimal("0.5")) <= high <= 1
    if good:
        more_low, more_high = wilson(bad + 1, n)
        assert low < more_low
        assert high <= more_high


@given(NUMBERS, NUMBERS, TARGETS)
def test_what_is_left_is_one_less_the_burn(good: int, bad: int, target: Decimal) -> None:
    """No more than the whole budget is left, and none of it once more was bad than may be."""
    left = budget_left(Counts(good, bad), target)
    assert left <= 1
    if good + bad:
        exact = Fraction(bad, good + bad) - (1 - Fraction(target))
        assert (left > 0) == (exact < 0 or bad == 0)


@given(levels(), st.data())
def test_too_few_outcomes_are_never_called_burning(level: Slo, data: st.DataObject) -> None:
    """Below the least number nothing is said, whatever the other windows hold."""
    few = data.draw(st.integers(0, level.min_count - 1))
    bad = data.draw(st.integers(0, few))
    found = judge(level, lambda w: Counts(few - bad, bad) if w == level.window else Counts(0, 99))
    assert found.state == "insufficient_data"
    thin = judge(level, lambda w: Counts(few - bad, bad) if w != level.window else Counts(500, 0))
    assert thin.state == "ok"


RANK = {"insufficient_data": 0, "ok": 0, "burning": 1, "exhausted": 2}


def standing(found: Judgement) -> tuple[Decimal, ...]:
    """Order judgements: each part only rises as it gets worse."""
    fired = [Decimal(rule.fires) for rule in found.rules]
    rates = [rate for rule in found.rules for rate in (rule.long_burn, rule.short_burn)]
    return (Decimal(RANK[found.state]), -found.budget_left, found.burn, -found.low, *fired, *rates)


@given(levels(), st.data(), st.sampled_from(["instead of a good one", "besides"]))
def test_one_more_bad_outcome_never_improves_anything(
    level: Slo, data: st.DataObject, way: str
) -> None:
    """Added, or in place of a good one: no number and no state gets better by it."""
    before = {w: Counts(data.draw(NUMBERS), data.draw(NUMBERS)) for w in windows(level)}
    less = 1 if way == "instead of a good one" else 0
    after = {
        w: Counts(max(0, c.good - less), c.bad + (1 if c.good or not less else 0))
        for w, c in before.items()
    }
    pairs = zip(
        standing(judge(level, before.__getitem__)), standing(judge(level, after.__getitem__)),
        strict=True,
    )  # fmt: skip
    assert all(old <= new for old, new in pairs)


@given(levels())
def test_every_default_rule_can_be_broken(level: Slo) -> None:
    """Where everything is bad every rule fires; its windows fit, and it pages somewhere."""
    rules = burns(level)
    for rule in rules:
        assert rule.short.size <= rule.long.size <= level.window.size
        assert level.target == 1 or rule.factor * level.budget < 1
    found = judge(level, lambda window: Counts(0, window.last or 10**7))
    assert all(rule.fires for rule in found.rules)
    assert any(rule.severity == "page" for rule in rules)
    assert Slo(level.name, level.sli, workflow="w", target=level.target, window=level.window,
               min_count=level.min_count, burn=rules).burn == rules  # fmt: skip
