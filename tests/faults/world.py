"""The world outside agentguard: a file that grows line by line and knows nothing of our record."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path


def append(path: Path, line: str) -> None:
    """Add one line in one write, so that no kill and no other process can tear it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def lines(path: Path) -> list[str]:
    """Read what was appended."""
    return path.read_text().splitlines() if path.exists() else []


class World:
    """What really happened, and what callers were told, in one folder.

    Args:
        url: the store that belongs to this world, from now on; a file in the folder, if nobody says.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder, self.store = folder, folder / "store.db"
        if url is not None:
            (folder / "url").write_text(url)
        self._effects, self._told = folder / "effects", folder / "told"
        self._reads = folder / "reads"

    @property
    def url(self) -> str:
        """The store that belongs to this world."""
        other = self.folder / "url"
        return other.read_text() if other.exists() else f"sqlite:///{self.store}"

    def act(self, name: str, key: str = "") -> None:
        """Make the effect *name* happen, asked for under the idempotency key *key*."""
        append(self._effects, f"{name} {key}")

    def look(self) -> None:
        """Read something; whoever looks leaves a mark, so that looks can be counted."""
        append(self._reads, "read")

    def looks(self) -> int:
        """Count how often somebody read."""
        return len(lines(self._reads))

    def effects(self) -> Counter[str]:
        """Count how often each effect happened, by name."""
        return Counter(line.split(" ")[0] for line in lines(self._effects))

    def names(self) -> dict[str, str]:
        """Look names up by idempotency key."""
        pairs = (line.split(" ") for line in lines(self._effects))
        return {key: name for name, key in pairs}

    def tell(self, name: str, result: object) -> None:
        """Note that a caller was told: *name* succeeded, with this result."""
        append(self._told, f"{name} {result}")

    def told(self) -> dict[str, set[str]]:
        """List the results that callers were told, by name; one for each if all is well."""
        found: dict[str, set[str]] = {}
        for line in lines(self._told):
            name, _, result = line.partition(" ")
            found.setdefault(name, set()).add(result)
        return found
