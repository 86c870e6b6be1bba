"""All subjects; within a group they take turns in this order."""

from __future__ import annotations

from . import postgres_floor, postgres_peers
from .contracts import CONTRACTS
from .disk import DISK
from .floors import FLOORS
from .frameworks import FRAMEWORKS
from .laps import Subject
from .lengths import LENGTH
from .memory import MEMORY
from .peers import PEERS
from .sizes import SIZE
from .subjects import SUBJECTS

ALL: list[Subject] = [
    *FLOORS,
    *postgres_floor.FLOORS,
    *PEERS,
    *postgres_peers.PEERS,
    *SUBJECTS,
    *CONTRACTS,
    *FRAMEWORKS,
    *SIZE,
    *LENGTH,
    *MEMORY,
    *DISK,
]
GROUPS = (
    "read",
    "write",
    "write-postgres",
    "writers",
    "writers-postgres",
    "replay",
    "replay-postgres",
    "size",
    "length",
    "memory",
    "disk",
    "contracts",
    "frameworks",
    "import",
)
