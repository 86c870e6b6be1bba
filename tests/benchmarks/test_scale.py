"""The scale document: its figures are the program's, the program can be run again, the model adds up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.scale import measured, page, study
from benchmarks.scale.measured import Engine
from benchmarks.scale.model import Costs, Scene, Simulation

from tests.support import ROOT

DOCUMENT = ROOT / "docs" / "scale.md"
ALONE = Costs(0.001, 0.002, 0.004, 1, 2, (0.01,) * 21)
"""Costs of which every sum can be told apart."""


@pytest.fixture(scope="module", name="data")
def what_the_program_wrote() -> Any:
    """Read the figures."""
    return json.loads((ROOT / "docs" / "scale.json").read_text())


@pytest.fixture(scope="module", name="engines")
def what_was_measured(data: Any) -> dict[str, Engine]:
    """Read the measurements."""
    return {name: Engine(**figures) for name, figures in data["measured"].items()}


def test_every_figure_of_the_document_is_the_programs(data: Any) -> None:
    """The tables in the document are those that the program makes of its data."""
    document = DOCUMENT.read_text()
    assert page.filled(document, data) == document
    assert {name for _, name, _ in page.BLOCK.findall(document)} == set(page.BLOCKS)


def test_the_prose_has_no_figures_of_its_own() -> None:
    """Outside of the program's tables no time, rate or size is claimed."""
    prose = page.BLOCK.sub("", DOCUMENT.read_text())
    assert re.findall(r"\d[\d,.]* ?(?:ms|µs|/s|%|GB|MB|KB|bytes)\b", prose) == []
    assert set(re.findall(r"\d[\d,.]*\d", prose)) <= {"10,000", "3600"}


@pytest.mark.parametrize(("scene", "workers"), [("server", 250), ("row", 250), ("file", 250)])
def test_the_simulation_can_be_run_again(
    data: Any, engines: dict[str, Engine], scene: str, workers: int
) -> None:
    """The same measurements and seed lead to the figures that the document shows."""
    again = study.rounded(study.simulated(scene, engines, workers))
    assert again == data["simulated"][scene][str(workers)]


def test_commits_are_measured(tmp_path: Path) -> None:
    """What the program measures of a file is there, and adds up."""
    engine = measured.sqlite(tmp_path, 0.1)
    assert 0 < engine.cpu_each < 0.1
    assert engine.waits == sorted(engine.waits)
    assert engine.table_bytes > 300
    assert engine.log_bytes > engine.table_bytes
    assert engine.batches["1"] == pytest.approx(1.0)
    assert engine.batches["64"] > 8


def test_a_lone_start_takes_the_sum_of_its_parts() -> None:
    """CPU, round trips, the server's core and the flush: one after the other, once."""
    scene = Scene(workers=1, processes=1, think=1.0, body=1.0, trip=0.1)
    found = Simulation(scene, ALONE).run(10.0, 200.0)
    assert found.p50 == pytest.approx(0.001 + 0.002 + 3 * 0.1 + 0.004 + 0.01)
    assert found.p99 == pytest.approx(found.p50)
    assert found.batch == pytest.approx(1.0)


def test_few_workers_get_what_they_ask_for() -> None:
    """Far from any limit, as many writes are made as the workers want."""
    found = Simulation(Scene(workers=200, processes=20), ALONE).run(20.0, 400.0)
    assert found.writes == pytest.approx(found.offered, rel=0.05)


def test_a_shared_row_is_a_queue() -> None:
    """Transactions that lock one row are at most one at a time, however many processes there are."""
    free = Scene(workers=64, processes=64, think=0.0, body=0.0, trip=0.0, cores=64)
    hold = 0.001 + 0.002 + 0.004 + 0.01
    row = Simulation(replace(free, budget="row"), ALONE).run(5.0, 20.0)
    lease = Simulation(replace(free, budget="lease"), ALONE).run(5.0, 20.0)
    assert row.writes <= 1 / (2 * hold) * 1.1
    assert lease.writes > 20 * row.writes


def test_a_tenants_log_is_a_queue_only_inside() -> None:
    """Places given inside the transaction hold beginning and ending runs up, places given later none."""
    scene = Scene(workers=64, processes=64, think=0.0, body=0.0, calls=1, trip=0.0, cores=64)
    later = Simulation(scene, ALONE).run(5.0, 20.0)
    inside = Simulation(replace(scene, positions_inside=True), ALONE).run(5.0, 20.0)
    assert inside.writes < later.writes / 10


def test_tenants_in_one_commit_are_tied_together() -> None:
    """A commit that holds rows of many tenants makes all of them wait; processes of one tenant do not."""
    scene = Scene(workers=400, processes=40, tenants=40, think=0.0, body=0.0, trip=0.0, cores=64)
    mixed = Simulation(replace(scene, budget="row"), ALONE).run(5.0, 20.0)
    pinned = Simulation(replace(scene, budget="row", pinned=True), ALONE).run(5.0, 20.0)
    assert pinned.writes > 5 * mixed.writes


def test_more_servers_carry_more() -> None:
    """Four servers serve four times what the cores of one can."""
    scene = Scene(workers=2_000, processes=200, tenants=40, think=0.5, body=0.0, trip=0.0, cores=2)
    one, four = (
        Simulation(replace(scene, servers=servers, pinned=True), ALONE).run(30.0, 20.0)
        for servers in (1, 4)
    )
    assert four.writes == pytest.approx(4 * one.writes, rel=0.2)


@pytest.mark.parametrize(
    ("worse", "better"),
    [("inside", "server"), ("row", "lease"), ("mixed", "pinned"), ("file", "server")],
)
def test_what_the_document_says_of_the_scenes_is_so(data: Any, worse: str, better: str) -> None:
    """Later places, leases, pinned tenants and a server go further than what they stand against."""
    one, other = data["simulated"][worse], data["simulated"][better]
    most = str(study.WORKERS[-1])
    assert study.knee(one) <= study.knee(other)
    assert one[most]["p99"] > other[most]["p99"]
