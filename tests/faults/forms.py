"""How much is tried: every place at night, many by `run.py faults`, an eighth of those in CI.

`python3 run.py faults` says which by AGENTGUARD_LONG: "1" is the long form, "" the short one. Where
nobody has said anything, it is CI: the stories are the same, with fewer places to die at.
"""

from __future__ import annotations

import os
import zlib

from tests.faults.mutants import PLACES

SAID = "AGENTGUARD_LONG"
FEWER = 8
"""CI tries one of so many places that the short form tries."""


def is_long() -> bool:
    """Whether everything is to be tried."""
    return os.environ.get(SAID) == "1"


def is_quick() -> bool:
    """Whether it is CI; what is to catch a seeded bug tries what it always does."""
    return SAID not in os.environ and PLACES not in os.environ


def places(story: object, short: int = 1) -> dict[str, int]:
    """Return which places of *story* are tried: each in so many, another first for each story."""
    step = 1 if is_long() else short * (FEWER if is_quick() else 1)
    return {"step": step, "first": zlib.crc32(str(story).encode()) % step}
