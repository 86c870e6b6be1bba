"""A disk that loses its power: what was written and not synced is gone, there, torn, or a part of it.

It is told what a process has asked of the kernel, as strace wrote it down, and can be read as it
may look after the power comes back. A file's bytes are durable once the file is synced, its name
(and that it was removed) once its folder is. A write can be torn between sectors of 512 bytes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.strace import Call

SECTOR = 512
ASKED = "openat,pwrite64,write,ftruncate,fallocate,pwritev,fdatasync,fsync,unlink,unlinkat,rename"
OPTIONS = ("-xx", "-s", "9999999", "-e", f"trace={ASKED}")
"""With these strace writes down everything that a disk needs to be told, bytes and all."""
_PATH = re.compile(r"^[\w, ]*<([^>]*)>")
_TEXT = re.compile(r'"([^"]*)"')


@dataclass
class File:
    """Bytes that are durable, and writes that are not: where each begins, and what was written."""

    durable: bytes = b""
    waiting: list[tuple[int, bytes | None]] = field(default_factory=list)
    size: int = 0

    def write(self, offset: int, data: bytes) -> None:
        """Write without syncing."""
        self.waiting.append((offset, data))
        self.size = max(self.size, offset + len(data))

    def cut(self, size: int) -> None:
        """Give the file another size, without syncing that."""
        self.waiting.append((size, None))
        self.size = size

    def content(self) -> bytes:
        """Return what a process reads that runs while there is power."""
        return replayed(self.durable, self.waiting)

    def sync(self) -> None:
        """Make all of it durable."""
        self.durable, self.waiting = replayed(self.durable, self.waiting), []


def replayed(start: bytes, writes: Iterable[tuple[int, bytes | None]]) -> bytes:
    """Do writes to what was there."""
    found = bytearray(start)
    for offset, data in writes:
        if len(found) < offset:
            found.extend(bytes(offset - len(found)))
        if data is None:
            del found[offset:]
        else:
            found[offset : offset + len(data)] = data
    return bytes(found)


Waiting = list[tuple[int, bytes | None]]
Loss = Callable[[random.Random, Waiting], Waiting]


def _none(_chance: random.Random, _waiting: Waiting) -> Waiting:
    return []


def _all(_chance: random.Random, waiting: Waiting) -> Waiting:
    return waiting


def _prefix(chance: random.Random, waiting: Waiting) -> Waiting:
    return waiting[: chance.randint(0, len(waiting))]


def _subset(chance: random.Random, waiting: Waiting) -> Waiting:
    return [write for write in waiting if chance.random() < 0.5]


def _torn(chance: random.Random, waiting: Waiting) -> Waiting:
    """Keep of each write some sectors."""
    return [part for offset, data in waiting for part in _sectors(chance, offset, data)]


def _sectors(chance: random.Random, offset: int, data: bytes | None) -> Waiting:
    if data is None:
        return [(offset, None)]
    edges = [offset, *range(offset - offset % SECTOR + SECTOR, offset + len(data), SECTOR)]
    pieces = zip(edges, [*edges[1:], offset + len(data)], strict=True)
    kept = [piece for piece in pieces if chance.random() < 0.5]
    return [(begin, data[begin - offset : end - offset]) for begin, end in kept]


LOSSES: dict[str, Loss] = {
    "nothing kept": _none, "all kept": _all, "a prefix": _prefix, "a subset": _subset, "torn": _torn,
}  # fmt: skip


class Disk:
    """The files of one folder, in memory and on the platter."""

    def __init__(self, folder: Path) -> None:
        self.names: dict[str, File] = {}
        self._prefix = f"{folder}/"
        self._folder = str(folder)
        self._durable_names: dict[str, File] = {}
        self._changed_names: list[tuple[str, File | None]] = []

    def told(self, call: Call) -> bool:
        """Do what a process has asked of the kernel; say whether it has changed anything here."""
        path = self._path(call)
        if path == self._folder and call.name in ("fdatasync", "fsync"):
            self._sync_names()
            return True
        if not path.startswith(self._prefix) or call.answer.startswith("-"):
            return False
        change = _CHANGES[call.name]
        return change(self, path.removeprefix(self._prefix), call)

    @staticmethod
    def _path(call: Call) -> str:
        if call.name in ("openat", "unlink", "unlinkat", "rename"):
            found = _TEXT.search(call.arguments)
        else:
            found = _PATH.search(call.arguments)
        return plain(found[1]).decode() if found else ""

    def _sync_names(self) -> None:
        self._durable_names, self._changed_names = dict(self.names), []

    def _opened(self, name: str, call: Call) -> bool:
        if "O_CREAT" not in call.arguments or name in self.names:
            return False
        self.names[name] = File()
        self._changed_names.append((name, self.names[name]))
        return True

    def _written(self, name: str, call: Call) -> bool:
        found = _TEXT.search(call.arguments)
        data = plain(found[1] if found else "")[: int(call.answer)]
        file = self.names[name]
        offset = file.size if call.name == "write" else int(call.arguments.rpartition(", ")[2])
        file.write(offset, data)  # who calls write() here, appends
        return True

    def _cut(self, name: str, call: Call) -> bool:
        self.names[name].cut(int(call.arguments.rpartition(", ")[2]))
        return True

    def _synced(self, name: str, _call: Call) -> bool:
        self.names[name].sync()
        return True

    def _removed(self, name: str, _call: Call) -> bool:
        del self.names[name]
        self._changed_names.append((name, None))
        return True

    def after_a_power_cut(self, loss: str, chance: random.Random) -> dict[str, bytes]:
        """Say how the files may look when the power comes back."""
        keep = LOSSES[loss]
        names = dict(self._durable_names)
        # A change of a name is kept or lost, never torn.
        order = [(number, b"") for number, _ in enumerate(self._changed_names)]
        for number, _ in keep(chance, [*order]):
            name, file = self._changed_names[number]
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        return {
            name: replayed(file.durable, keep(chance, file.waiting)) for name, file in names.items()
        }


_CHANGES: dict[str, Callable[[Disk, str, Call], bool]] = {
    "openat": Disk._opened, "pwrite64": Disk._written, "write": Disk._written,
    "ftruncate": Disk._cut, "fdatasync": Disk._synced, "fsync": Disk._synced,
    "unlink": Disk._removed,
}  # fmt: skip
"""What is not here is not asked by a worker; if it is one day, a KeyError says so."""


def plain(hexadecimal: str) -> bytes:
    """Read what strace wrote as hexadecimal digits."""
    return bytes.fromhex(hexadecimal.replace("\\x", ""))
