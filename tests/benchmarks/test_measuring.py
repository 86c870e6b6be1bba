"""The benchmark measures: real subjects in processes of their own, a few steps each."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import __main__ as benchmarks
from benchmarks.costs import SUBJECTS, profile, room_of, shares_of, stacks_of
from benchmarks.laps import MANY, Caller
from benchmarks.lengths import late
from benchmarks.measure import QUICK, Plan, measure
from benchmarks.postgres import place_of
from benchmarks.registry import ALL
from benchmarks.subjects import new_guard

SAMPLES = """\
Stack (most recent call first):
  File "/usr/lib/python3.11/json/encoder.py", line 205 in iterencode
  File "/x/src/agentguard/canonical.py", line 275 in seal
  File "/x/src/agentguard/ledger/rows.py", line 90 in insert
  File "/x/benchmarks/laps.py", line 100 in timed
Stack (most recent call first):
  File "/x/src/agentguard/stores/sqlite.py", line 85 in run
  File "/x/src/agentguard/ledger/runs.py", line 105 in add
Stack (most recent call first):
  File "/x/benchmarks/laps.py", line 100 in timed
"""


def test_a_group_is_measured_in_turns(tmp_path: Path) -> None:
    """Each subject does its steps in every round, and writes of ours are on the disk."""
    wanted = {"raw two FULL commits, fresh WAL", "guarded write, used store"}
    chosen = [one for one in ALL if one.group == "write" and one.name in wanted]
    said: list[str] = []
    group = measure("write", chosen, Plan(2, 3), tmp_path, said.append)
    assert [one.trouble for one in group.series] == ["", ""]
    assert [[len(lap.steps) for lap in one.laps] for one in group.series] == [[3, 3], [3, 3]]
    turns = [sentence.partition(", ")[2] for sentence in said if "round" in sentence]
    assert turns == [subject.name for _ in range(2) for subject in chosen]


def test_a_missing_package_is_a_reason(tmp_path: Path) -> None:
    """A subject whose work cannot be opened is told as missing, and the others are measured."""
    gone = replace(ALL[0], group="write", name="no such subject")
    floor = next(one for one in ALL if one.name == "fdatasync of a 4 KB append")
    group = measure("write", [gone, floor], Plan(1, 2), tmp_path, lambda _: None)
    assert group.series[0].trouble.startswith("ended: ")
    assert group.series[1].measured


def test_a_quick_run_says_what_it_leaves_out(tmp_path: Path) -> None:
    """What takes too long for a quick run is not opened, and stands there with that reason."""
    large = [one for one in ALL if one.group == "size" and one.full]
    group = measure("size", large, Plan(1, 1), tmp_path, lambda _: None, quick=True)
    assert {one.trouble for one in group.series} == {"only in the full run"}
    assert list(tmp_path.iterdir()) == []


def test_long_runs_are_as_long_as_they_say(tmp_path: Path) -> None:
    """What is timed comes after the steps that the subject names, in a run that has them."""
    with asyncio.Runner() as runner:
        place = place_of(tmp_path / "length" / "0", runner)
        place.folder.mkdir(parents=True)
        with late(place, part="whole", length=10, guard_in=new_guard) as work:
            laps = [len(work(Caller(0, f"lap{lap}"), 3)) for lap in range(2)]
        runs = new_guard(place).runs.list()
    assert laps == [3, 3]
    assert [run.steps for run in runs] == [13, 13]


def test_the_command_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run prints the table and writes page and figures, which have the same losses."""
    monkeypatch.setitem(QUICK, "replay", Plan(2, 5))
    monkeypatch.setattr(
        "benchmarks.postgres.data_in", nullcontext
    )  # other tests use that home, too
    page, figures = tmp_path / "docs" / "page.md", tmp_path / "docs" / "figures.json"
    words = ["--quick", "--only", "replay", "--folder", str(tmp_path)]
    assert benchmarks.main([*words, "--markdown", str(page), "--json", str(figures)]) == 0
    told = json.loads(figures.read_text())
    assert [loss for loss in told["where we lose"] if loss not in page.read_text()] == []
    assert told["machine"]["postgres"].startswith("18")
    assert "guarded replay" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]


def test_samples_go_to_the_innermost_room() -> None:
    """What C code does for a seal is the seal's, what the store does for the ledger the store's."""
    stacks = stacks_of(SAMPLES)
    assert [room_of(stack) for stack in stacks] == [
        "hashes, seals and canonical JSON",
        "the database, seen from its client",
        "the benchmark",
    ]
    shares, functions = shares_of(stacks)
    assert sum(shares.values()) == pytest.approx(1)
    assert dict(functions)["json/encoder.py: iterencode"] == pytest.approx(1 / 3)


def test_a_profile_sees_the_call(tmp_path: Path) -> None:
    """Some hundredths of a second of reads are seen in more than one room, most of it ours."""
    cost = profile("read", tmp_path, seconds=0.3)
    assert not isinstance(cost, str), cost
    assert cost.samples > 10
    assert cost.shares.keys() >= {"spans", "the guarded call itself"}
    assert cost.shares.get("other", 0) < 0.2


def test_every_profiled_subject_is_measured_too() -> None:
    """What the section on costs shows are subjects of the tables, 32 callers among them."""
    found = {
        name: one for one in ALL for name, key in SUBJECTS.items() if key == (one.group, one.name)
    }
    assert found.keys() == SUBJECTS.keys()
    assert {one.callers for one in found.values()} == {1, MANY}
