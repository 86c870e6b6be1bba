"""The axis and the bars of a run, from the times of its steps."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.cli.waterfall import Axis, Segment, merged, runs_of, segments
from agentguard.record import Attempt, Duplicate, Question, Step

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    """Return a moment so many seconds after noon."""
    return NOON + dt.timedelta(seconds=seconds)


def work(began: float, ended: float) -> Segment:
    """Return a stretch of work."""
    return Segment("write", began, ended)


def drawn(axis: Axis, *parts: Segment) -> str:
    """Return a bar without colours."""
    return "".join(text for text, _ in runs_of(axis.bar(parts)))


def test_work_is_drawn_to_scale() -> None:
    """Two stretches of equal length get equally many cells."""
    axis = Axis([[work(0, 5)], [work(5, 10)]], 20)
    assert drawn(axis, work(0, 5)) == "█" * 10 + " " * 10
    assert drawn(axis, work(5, 10)) == " " * 10 + "█" * 10


def test_work_too_short_for_a_cell_gets_one() -> None:
    """Nothing that happened is invisible."""
    axis = Axis([[work(0, 100)], [work(50, 50.001)]], 20)
    assert drawn(axis, work(50, 50.001)).count("█") == 1


def test_a_long_idle_stretch_is_folded() -> None:
    """An hour of waiting between two seconds of work takes a mark that tells its length."""
    axis = Axis([[work(0, 1)], [work(3601, 3602)]], 40)
    assert "┄ 1 h ┄" in axis.ruler()
    assert [drawn(axis, work(at, at + 1)).count("█") for at in (0, 3601)] == [17, 16]


def test_a_short_idle_stretch_keeps_its_scale() -> None:
    """A pause that is short beside the work is drawn as it was."""
    axis = Axis([[work(0, 4)], [work(5, 10)]], 20)
    assert "┄" not in axis.ruler()
    assert drawn(axis, work(5, 10)) == " " * 10 + "█" * 10


def test_the_length_that_is_folded_depends_on_the_rest() -> None:
    """Ten long waits are all folded; a tenth of a busy run is not."""
    waits = [[work(hour * 3600, hour * 3600 + 1)] for hour in range(11)]
    assert Axis(waits, 100).ruler().count("⋯") + Axis(waits, 100).ruler().count("59 min") == 10
    busy = [[work(at, at + 0.5)] for at in range(10)]
    assert "┄" not in Axis(busy, 100).ruler()


def test_a_lost_process_is_not_drawn_as_work() -> None:
    """From a start whose process vanished to its discovery nobody worked."""
    lost = Attempt(1, 1, at(0), at(60), "in_doubt", "owner_lost")
    step = Step(1, at(0), "write", ended_at=at(60), attempts=(lost,))
    (part,) = segments(step, at(100))
    assert (part.kind, step.worked()) == ("lost", dt.timedelta())
    assert drawn(Axis([[part]], 20), part).strip() == "▒" * 19


def test_waiting_is_folded_too() -> None:
    """Waiting for people is no work: it is drawn over the folded stretch."""
    axis = Axis([[work(0, 1)], [Segment("wait", 1, 500), work(500, 501)]], 40)
    bar = drawn(axis, Segment("wait", 1, 500), work(500, 501))
    assert bar.strip(" ").startswith("░")
    assert bar.rstrip().endswith("█")


def test_many_marks_get_shorter() -> None:
    """Where marks would fill the axis the longest keep their labels; too many fold nothing."""
    some = [[work(hour**2 * 3600, hour**2 * 3600 + 1)] for hour in range(5)]
    assert Axis(some, 30).ruler().count("⋯") == 4
    assert "┄ 6 h 59 min ┄" in Axis(some, 60).ruler()
    many = [[work(hour * 3600, hour * 3600 + 1)] for hour in range(40)]
    assert "⋯" not in Axis(many, 30).ruler()


def test_work_stands_over_waiting() -> None:
    """Where both fall into one cell the work is seen."""
    axis = Axis([[work(0, 10)]], 10)
    assert drawn(axis, Segment("wait", 0, 10), work(0, 10)) == "█" * 10


def test_overlaps_count_once() -> None:
    """Stretches side by side are one stretch."""
    assert merged([(0, 2), (1, 3), (5, 6)]) == [(0, 3), (5, 6)]


def test_a_run_without_time_is_drawn() -> None:
    """A run that took no time at all still has a cell for its step."""
    axis = Axis([[Segment("tick", 0, 0)]], 12)
    assert drawn(axis, Segment("tick", 0, 0)) == "│" + " " * 11
    assert len(Axis([], 12).ruler()) == 12


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "wait", "tick"]), st.floats(0, 1e6), st.floats(0, 1e5)),
        min_size=1, max_size=30,
    ),
    st.integers(12, 150),
)  # fmt: skip
def test_every_bar_fits_the_axis(parts: list[tuple[str, float, float]], width: int) -> None:
    """Whatever the times are, ruler and bars are as wide as the axis, and each part is seen."""
    bars = [[Segment(kind, began, began + length)] for kind, began, length in parts]
    axis = Axis(bars, width)
    assert len(axis.ruler()) == width
    assert sum(piece.width for piece in axis.pieces) == width
    for bar in bars:
        assert len(drawn(axis, *bar)) == width
        assert drawn(axis, *bar).strip()


def test_the_parts_of_a_step_are_its_waits_tries_and_repeats() -> None:
    """A call that waited, was tried twice and repeated has four parts."""
    step = Step(
        1, at(0), "write",
        questions=(Question("ap_1", "always", "hash", at(0), decided_at=at(60)),),
        attempts=(Attempt(1, 1, at(70), at(71)), Attempt(2, 2, at(72), at(75))),
        duplicates=(Duplicate(at(90), "r", 1, None),),
    )  # fmt: skip
    found = [(p.kind, p.ended - p.began) for p in segments(step, at(100))]
    assert found == [("wait", 60), ("write", 1), ("write", 3), ("tick", 0)]


@pytest.mark.parametrize(
    ("step", "kind", "length"),
    [
        (Step(1, at(0), "model", ended_at=at(5)), "model", 5),
        (Step(1, at(0), "model"), "tick", 0),
        (Step(1, at(0), "write", attempts=(Attempt(1, 1, at(0)),)), "write", 100),
        (Step(1, at(0), "write", ended_at=at(9), attempts=(Attempt(1, 1, at(0)),)), "write", 9),
        (Step(1, at(0), "write", questions=(Question("a", "r", "h", at(0)),)), "wait", 100),
    ],
)
def test_what_has_no_end_is_drawn_until_now(step: Step, kind: str, length: float) -> None:
    """Work and waiting without an end reach to now; a lost model call is a tick."""
    found = segments(step, at(100))
    assert [(part.kind, part.ended - part.began) for part in found] == [(kind, length)]
