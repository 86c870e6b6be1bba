"""How a trial asks a module of tests/faults in a fresh process, with a folder of its own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.matrix import Count, NotHere
from tests.faults.processes import ask

_MEMORY = Path("/dev/shm")


def answers(count: Count, module: str, place: str, **plan: Any) -> Any:
    """Let *module* try what *plan* says, count what it found, and return its answer.

    Raises:
        NotHere: this machine lacks what the module needs.
    """
    home = _MEMORY if _MEMORY.is_dir() else None  # no test of ours needs a disk for its files
    with tempfile.TemporaryDirectory(dir=home, prefix="agentguard-") as folder:
        answer = ask(module, json.dumps({**plan, "folder": folder, "seed": count.seed}))
    if "not_here" in answer:
        raise NotHere(answer["not_here"])
    count.add(answer["problems"], answer["points"], place=place)
    return answer
