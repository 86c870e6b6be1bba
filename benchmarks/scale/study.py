"""The questions that are put to the model, and the answers as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from benchmarks.scale.measured import CALLERS, Engine
from benchmarks.scale.model import Costs, Found, Scene, Simulation

WORKERS = (250, 500, 1_000, 2_500, 5_000, 10_000, 20_000)
WARM, SECONDS = 30.0, 30.0
IN_TIME, ENOUGH = 0.050, 0.95
"""A start is in time within so many seconds (p99), and enough of the offered writes is so much."""

SERVER = Scene()
SCENES: dict[str, tuple[str, Scene]] = {
    "file": ("one SQLite file, one machine", replace(SERVER, one_file=True, cores=2, trip=0.0)),
    "server": ("one PostgreSQL server", SERVER),
    "inside": (
        "one server, places in the log given inside the transaction",
        replace(SERVER, positions_inside=True),
    ),
    "row": ("one server, one budget row shared by all calls", replace(SERVER, budget="row")),
    "lease": ("one server, that budget taken in shares", replace(SERVER, budget="lease")),
    "mixed": (
        "one server, 40 budget rows, every process serves all of them",
        replace(SERVER, tenants=40, budget="row"),
    ),
    "pinned": (
        "one server, 40 budget rows, a process serves one of them",
        replace(SERVER, tenants=40, budget="row", pinned=True),
    ),
    "sharded": ("four servers, 40 tenants", replace(SERVER, tenants=40, servers=4)),
}
"""Each of them with one tenant, unless it says otherwise."""


def costs_of(engine: Engine) -> Costs:
    """Return what the model takes from a measurement."""
    return Costs(
        engine.cpu_fixed, engine.cpu_each, engine.server_each, engine.trips_fixed,
        engine.trips_each, tuple(engine.waits),
    )  # fmt: skip


def simulated(name: str, engines: dict[str, Engine], workers: int) -> Found:
    """Play one scene."""
    costs = costs_of(engines["sqlite" if name == "file" else "postgres"])
    scene = replace(SCENES[name][1], workers=workers)
    return Simulation(scene, costs).run(WARM, SECONDS)


def all_scenes(
    engines: dict[str, Engine], told: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """Play every scene with every number of workers."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in SCENES:
        found[name] = {}
        for workers in WORKERS:
            told(f"{name}, {workers:,} workers")
            found[name][str(workers)] = rounded(simulated(name, engines, workers))
    return found


def rounded(found: Found) -> dict[str, float]:
    """Return what is kept of a simulation."""
    return {name: float(f"{value:.4g}") for name, value in asdict(found).items()}


def knee(found: dict[str, dict[str, float]]) -> int:
    """Return the largest number of workers that was played and served in time; 0 if none was."""
    served = [int(n) for n, f in found.items()
              if f["writes"] >= ENOUGH * f["offered"] and f["p99"] <= IN_TIME]  # fmt: skip
    return max(served, default=0)


def held_against(engine: Engine, *, one_file: bool) -> Iterator[dict[str, Any]]:
    """Play what was measured, callers of one process without a pause, and put both side by side."""
    for callers in CALLERS:
        scene = Scene(
            workers=callers, processes=1, think=0.0, body=0.0, calls=10_000, trip=0.0, cores=2,
            one_file=one_file,
        )  # fmt: skip
        played = Simulation(scene, costs_of(engine)).run(0.5, 2.0)
        yield {
            "callers": callers, "measured": float(f"{engine.rates[str(callers)]:.4g}"),
            "played": float(f"{played.writes:.4g}"),
        }  # fmt: skip
