"""All subjects; within a group they take turns in this order."""

from __future__ import annotations

from .contracts import CONTRACTS
from .floors import FLOORS
from .laps import Subject
from .peers import PEERS
from .subjects import SUBJECTS

ALL: list[Subject] = [*FLOORS, *PEERS, *SUBJECTS, *CONTRACTS]
GROUPS = ("read", "write", "writers", "replay", "contracts", "import")
