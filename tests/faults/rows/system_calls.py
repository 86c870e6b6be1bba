"""F2, F3 and F4: SIGKILL, a full disk and a broken disk, at the system calls of one worker's life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.faults.matrix import Count, Result
from tests.faults.rows.asking import answers

PLAIN = {"story": "plain", "hook": False, "fresh": False, "first_death": "", "stays": False}
HOOK, FRESH, STAYS = {"hook": True}, {"fresh": True}, {"stays": True}
AFTER_A_DEATH = {"first_death": "effect done", "hook": True}
LIVES: tuple[dict[str, Any], ...] = (
    {}, HOOK, FRESH, AFTER_A_DEATH,
    *({"story": story, **hook} for story in ("retried", "doubted", "approved") for hook in ({}, HOOK)),
    {"story": "ruled", "first_death": "effect done"},
)  # fmt: skip


def killed(long: bool, seed: int) -> Result:
    """Kill a worker at the system calls that write, sync, create and remove."""
    short = ({"share": 0.8}, {**FRESH, "share": 0.2}, {**AFTER_A_DEATH, "share": 0.2})
    return hit("F2", "KILL", LIVES if long else short, seed)


def disk_full(long: bool, seed: int) -> Result:
    """Let the disk be full at one write, or from one write on."""
    short = ({"share": 0.2}, {**STAYS, "share": 0.12})
    return hit("F3", "ENOSPC", once_and_for_all() if long else short, seed)


def bad_disk(long: bool, seed: int) -> Result:
    """Let the disk fail at one read, write or sync, or from one on."""
    short = ({"share": 0.15}, {**STAYS, "share": 0.1})
    return hit("F4", "EIO", once_and_for_all() if long else short, seed)


def once_and_for_all() -> list[dict[str, Any]]:
    """Tell every life with a fault that passes and with one that stays."""
    return [{**life, **stays} for life in LIVES for stays in ({}, STAYS)]


def hit(fault: str, what: str, lives: Iterable[Mapping[str, Any]], seed: int) -> Result:
    """Hit workers of all these lives."""
    count = Count(fault, "sqlite", seed)
    for life in lives:
        words = ", ".join(f"{name} {value}" for name, value in life.items() if name != "share")
        answers(count, "injections", words, **{**PLAIN, "share": 1, **life, "fault": what})
    return count.result(notes="a point is a system call of a worker, under strace")
