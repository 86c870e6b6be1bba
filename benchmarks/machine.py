"""The machine that was measured on: without it no figure means anything."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeAlias

Description: TypeAlias = dict[str, str]

DISTRIBUTIONS = (
    "agentguard",
    "opentelemetry-sdk",
    "pydantic",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "psycopg",
    "dbos",
    "aws-lambda-powertools",
    "langchain",
    "semantic-kernel",
    "llama-index-core",
)
SPINS = 200_000


def describe(folder: Path) -> Description:
    """Say what the figures depend on; *folder* is where the stores lie."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": cpu_model(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "filesystem": filesystem(folder),
        "fsync of 4 KB": f"{fsync_cost(folder) * 1e6:.0f} µs",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "packages": ", ".join(filter(None, map(installed, DISTRIBUTIONS))),
    }


def cpu_model() -> str:
    """Name the processor."""
    lines = read_lines("/proc/cpuinfo")
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def filesystem(folder: Path) -> str:
    """Name the filesystem under *folder*: on tmpfs an fsync costs nothing and no ratio holds."""
    best = ("/", "unknown")
    for line in read_lines("/proc/mounts"):
        _, mount, kind = line.split()[:3]
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def read_lines(path: str) -> list[str]:
    """Read a file of the kernel's, or nothing where there is none."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def fsync_cost(folder: Path, times: int = 50) -> float:
    """Seconds for a 4 KB append and fsync: the median of a few."""
    taken: list[float] = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(times):
            start = perf_counter()
            file.write(b"\0" * 4096)
            os.fsync(file.fileno())
            taken.append(perf_counter() - start)
    return median(taken)


def installed(distribution: str) -> str:
    """Name a package with its version, or nothing."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return ""


def spin() -> float:
    """Seconds for a fixed piece of pure Python: did the processor itself change speed?"""
    start = perf_counter()
    total = 0
    for number in range(SPINS):
        total += number
    return perf_counter() - start


def spread_of_spins(spins: list[float]) -> str:
    """Say how far the processor's own speed wandered during the run."""
    return f"{len(spins)} looks, the fastest {max(spins) / min(spins):.2f} times as fast as the slowest"
