"""The report of the benchmark tells what was measured, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks.goals import GOALS, goals_of, verdicts
from benchmarks.losses import where_we_lose
from benchmarks.page import page
from benchmarks.plots import LEDGER, PEERS, plots
from benchmarks.reasons import why
from benchmarks.registry import ALL, GROUPS
from benchmarks.report import HEAD, record, row, text
from benchmarks.sizes import SIZES
from benchmarks.titles import SHORT, TITLES

from tests.benchmarks.series import FLOOR, OURS, PEER, crowd, group, missing, never, series

US = 1e-6
DOCS = Path(__file__).resolve().parents[2] / "docs"


def cells(found: list[str]) -> dict[str, str]:
    """Name the cells of a row."""
    return dict(zip(HEAD, found, strict=True))


def test_a_ratio_is_taken_round_by_round() -> None:
    """When the machine slows down twofold in a round, a ratio that holds in every round stays exact."""
    ours, floor = series(OURS, [30 * US, 60 * US]), series(FLOOR, [10 * US, 20 * US])
    measured = cells(row(group(floor, ours), ours))
    assert measured["ratio"] == "3.00"
    assert measured["p50"] == "45.0 µs"


def test_a_spread_of_ratios_is_shown() -> None:
    """A ratio that differs between rounds comes with its least and its most."""
    ours, floor = series(OURS, [10 * US, 30 * US, 20 * US]), series(FLOOR, [10 * US] * 3)
    assert cells(row(group(floor, ours), ours))["ratio"] == "2.00 (1.00-3.00)"


@pytest.mark.parametrize(("cost", "said"), [(9 * US, "yes (0.90)"), (11 * US, "NO (1.10)")])
def test_a_goal_is_met_or_not(cost: float, said: str) -> None:
    """The table says yes to a median below the limit, and NO to one above it."""
    ours, floor = series(OURS, [cost] * 3), series(FLOOR, [10 * US] * 3)
    assert cells(row(group(floor, ours), ours))["met?"] == said


def test_more_is_better_for_writers() -> None:
    """A crowd that does ten times a peer's steps misses the goal of fifteen times, and says so."""
    ours = series(crowd(OURS, "guarded write, tasks"), [10 * US] * 3)
    dbos = series(replace(crowd(PEER, "DBOS"), library="DBOS"), [100 * US] * 3)
    measured = cells(row(group(dbos, ours), ours))
    assert measured["DBOS"] == "10.0"
    assert measured["met?"].startswith("NO (10.0)")


def test_a_ratio_is_taken_to_what_the_subject_names() -> None:
    """A subject that stands beside another is compared with that one, and without it with nothing."""
    floor, bare = series(FLOOR, [1 * US] * 3), series(replace(FLOOR, name="bare"), [10 * US] * 3)
    ours = series(replace(OURS, beside="bare"), [20 * US] * 3)
    assert cells(row(group(floor, bare, ours), ours))["ratio"] == "2.00"
    assert cells(row(group(floor, ours), ours))["ratio"] == ""


def test_a_peer_is_held_at_its_best() -> None:
    """Of two variants of a peer, ratios are taken to the faster one."""
    slow, fast = series(PEER, [90 * US] * 3), series(replace(PEER, name="fast"), [20 * US] * 3)
    ours = series(OURS, [40 * US] * 3)
    assert cells(row(group(slow, fast, ours), ours))["LangGraph"] == "2.00"


def test_unlike_things_are_not_compared() -> None:
    """A peer's figure of another kind, such as another length of run, is no figure to compare with."""
    other = series(replace(PEER, kind="write, 400 steps"), [1 * US] * 3)
    ours = series(replace(OURS, kind="write, 10 steps"), [40 * US] * 3)
    assert cells(row(group(other, ours), ours))["LangGraph"] == ""


def test_a_missing_peer_is_named() -> None:
    """A peer that is not installed stands in the table as left out, and its reason below it."""
    reason = "dbos is not installed, so what needs it is left out"
    dbos = missing(replace(crowd(PEER, "DBOS, threads"), library="DBOS"), reason)
    ours = series(crowd(OURS, "guarded write, tasks"), [10 * US] * 3)
    shown = text({}, [group(dbos, ours)])
    assert "DBOS, threads" in shown
    assert "left out" in shown
    assert f"{reason}: writers/DBOS, threads" in shown


def test_a_goal_without_its_peer_is_not_judged() -> None:
    """Without the peer a goal is neither met nor missed, in the table, the figures and the losses."""
    ours = series(crowd(OURS, "guarded write, tasks"), [10 * US] * 3)
    alone = group(ours)
    assert cells(row(alone, ours))["met?"].startswith("not judged")
    entry = record({}, [alone])["groups"]["writers"][0]
    assert [goal["met"] for goal in entry["goals"]][:3] == [None, None, None]
    assert "3 could not be judged" in where_we_lose([alone])[0]


def test_what_is_not_there_yet_is_not_judged() -> None:
    """A subject that could not be opened has its goal in the losses, with the reason."""
    ours = missing(OURS, "the store is not there yet")
    lost = where_we_lose([group(series(FLOOR, [1 * US]), ours)])
    assert lost[-1].startswith("Not judged (the store is not there yet): P2 ")
    assert cells(row(group(ours), ours))["met?"] == "not there yet"


def test_half_a_series_is_no_series() -> None:
    """A subject that broke in the middle of the rounds gives no ratio and meets no goal."""
    broken = series(OURS, [1 * US])
    broken.trouble = "ended: killed"
    found = group(series(FLOOR, [10 * US] * 3), broken)
    assert [one.met for one in verdicts(found)] == [None]


def test_every_missed_goal_is_a_loss() -> None:
    """Each NO of the table is a sentence under where we lose, with its goal and its figure."""
    ours, floor = series(OURS, [33 * US] * 3), series(FLOOR, [10 * US] * 3)
    lost = where_we_lose([group(floor, ours)])
    assert lost[0].startswith("Of 1 goals 0 are met, 1 are missed and 0 could not be judged")
    assert any("≤ 1.0x floor" in sentence and "3.30" in sentence for sentence in lost[1:])


def test_every_better_peer_is_a_loss() -> None:
    """A peer that is faster stands among the losses, one that is slower does not."""
    ours = series(OURS, [40 * US] * 3)
    peer = series(replace(PEER, caveat="which cheats"), [10 * US] * 3)
    slower = series(replace(PEER, name="DBOS step", library="DBOS"), [50 * US] * 3)
    lost = where_we_lose([group(series(FLOOR, [50 * US] * 3), peer, slower, ours)])
    assert any(
        "4.00 times slower than LangGraph (LangGraph @task, which cheats)" in one for one in lost
    )
    assert not any("DBOS" in sentence for sentence in lost)


def test_a_verdict_that_rounds_disagree_on_is_marked() -> None:
    """A missed goal that some rounds would have met is called within the noise."""
    ours, floor = series(OURS, [9 * US, 12 * US, 13 * US]), series(FLOOR, [10 * US] * 3)
    assert any(
        "within the noise" in sentence for sentence in where_we_lose([group(floor, ours)])[1:]
    )


def test_memory_is_judged_only_after_enough_calls() -> None:
    """Growth in a short lap proves nothing about a hundred thousand calls."""
    reads = replace(OURS, name="guarded reads", group="memory", unit="bytes")
    grown = series(reads, [1e6], steps=1)
    assert [one.met for one in verdicts(group(grown, steps=6400))] == [None]
    assert [one.met for one in verdicts(group(grown, steps=100_000))] == [True]
    shrunk = series(reads, [-6e6], steps=1)
    assert [one.met for one in verdicts(group(shrunk, steps=100_000))] == [False]


def test_all_ten_goals_are_held_against_something() -> None:
    """P1 to P10 are all there, and each binds a subject that the benchmark has."""
    known = {(subject.group, subject.name) for subject in ALL}
    assert {goal.number for goal in GOALS} >= {f"P{number}" for number in range(1, 11)}
    assert [goal for goal in GOALS if (goal.group, goal.subject) not in known] == []


def test_every_subject_stands_where_it_can_be_found() -> None:
    """Names are unique within a group, groups have titles, and comparisons name a known subject."""
    named = [(subject.group, subject.name) for subject in ALL]
    assert len(named) == len(set(named))
    assert {group for group, _ in named} == set(GROUPS) == set(TITLES) == set(SHORT)
    lost = [one.name for one in ALL if one.beside and (one.group, one.beside) not in named]
    assert lost == []


def test_the_page_tells_what_the_figures_tell() -> None:
    """The page has every loss, every subject and the machine; JSON has the same losses."""
    ours, floor = series(OURS, [33 * US] * 3), series(FLOOR, [10 * US] * 3)
    groups = [group(floor, ours, missing(PEER, "not installed"))]
    written = page({"cores": "2"}, groups, [], ["| costs |"], "--quick")
    told = json.loads(json.dumps(record({"cores": "2"}, groups)))
    assert [loss for loss in told["where we lose"] if f"- {loss}\n" not in written] == []
    assert [one.subject.name for one in groups[0].series if one.subject.name not in written] == []
    assert "- cores: 2" in written
    assert "run.py bench --quick" in written
    assert "| costs |" in written


def test_plots_draw_what_was_measured() -> None:
    """Each plot is well-formed, for light and dark pages, and shows each subject with its figure."""
    ours = series(crowd(OURS, "guarded write, tasks"), [10 * US] * 3)
    large = [
        series(replace(OURS, name=f"start, {size:,} records, SQLite", group="size"), [cost] * 3)
        for size, cost in zip(SIZES, (1.0, 1.1, 1.2, 1.3), strict=True)
    ]
    drawn = plots([group(ours), group(*large)])
    assert drawn.keys() == {PEERS, LEDGER}
    assert all("prefers-color-scheme: dark" in drawing for drawing in drawn.values())
    said = {name: "".join(ET.fromstring(one).itertext()) for name, one in drawn.items()}
    assert "guarded write, tasks · SQLite" in said[PEERS]
    assert "100,000" in said[PEERS]
    assert "start, SQLite" in said[LEDGER]
    assert "goal: at most 1.2x" in said[LEDGER]
    assert drawn[LEDGER].count("<circle") == len(SIZES)


def test_what_was_not_measured_is_not_drawn() -> None:
    """Without writers and ledgers there are no plots, and the page shows none."""
    ours = series(OURS, [1 * US])
    assert plots([group(ours)]) == {}
    assert "![" not in page({}, [group(ours)], plots([group(ours)]), [], "")


def test_goals_bind_by_group_and_name() -> None:
    """A subject of the same name in another group has that group's goals."""
    crowd_on_postgres = replace(OURS, name="guarded write, tasks", group="writers-postgres")
    assert {goal.number for goal in goals_of(series(crowd_on_postgres, [1.0]))} == {"P5"}
    assert goals_of(series(replace(FLOOR, open=never), [1.0])) == []


def test_the_published_page_is_of_the_published_run() -> None:
    """The published page tells each loss and names each subject of the published figures."""
    figures = DOCS / "benchmarks.json"
    if not figures.exists():
        pytest.skip("no run was published yet: python3 run.py bench --publish")
    told, written = json.loads(figures.read_text()), (DOCS / "benchmarks.md").read_text()
    subjects = [one["subject"] for found in told["groups"].values() for one in found]
    assert [loss for loss in told["where we lose"] if f"- {loss}\n" not in written] == []
    assert [name for name in subjects if f"| {name} |" not in written] == []
    assert [name for name in (PEERS, LEDGER) if not (DOCS / name).exists()] == []
    missed = {loss.split(":")[0] for loss in told["where we lose"] if re.match(r"P\d+:", loss)}
    assert [said for said in why(missed) if f"{said}\n" not in written] == []
    assert len(why(missed)) == len(missed)
