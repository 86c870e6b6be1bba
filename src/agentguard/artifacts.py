"""What functions with `cached` have made: looked through, counted and pruned by operators."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from . import durations
from ._runtime import InlineRuntime, run_inline
from .errors import StoreUnavailable
from .ledger import artifacts
from .ledger.artifacts import Artifact, Wish
from .model import dollars

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Mapping

    from ._runtime import Runtime
    from .ledger.artifacts import Counts, Group
    from .protocols import Store

T = TypeVar("T")

FLUSH_AFTER = 64
"""So many look-ups are counted in memory at the most, before a write takes them along."""
FLUSH_SECONDS = 10.0
_MICROS = 1_000_000
_LOG = logging.getLogger("agentguard")
_SHARE = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Rate:
    """How often artifacts of one kind and version were found.

    Attributes:
        saved_usd: what making those cost that were found, as far as that is known.
    """

    tenant: str
    kind: str
    version: str
    hits: int
    misses: int
    saved_usd: Decimal

    @property
    def share(self) -> Decimal:
        """Found of all that were looked for."""
        total = self.hits + self.misses
        return (Decimal(self.hits) / total).quantize(_SHARE) if total else Decimal(0)


class Artifacts:
    """What functions with `cached` have made: `guard.artifacts`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._keys: dict[str, bytes] = {}
        self.renew()
        _ALL.add(self)

    def renew(self) -> None:
        """Begin to count anew: what was counted before a fork is the parent's."""
        self._lock, self._since = threading.Lock(), time.monotonic()
        self._counted: dict[Group, tuple[int, int, int]] = {}

    def rates(self, *, tenant: str | None = None) -> builtins.list[Rate]:
        """Return hits and misses by tenant, kind and version; those of other processes as written."""
        self.flush()
        found = self.store.read(artifacts.rates, tenant)
        return [
            Rate(*group, hits, misses, dollars(saved)) for group, (hits, misses, saved) in found
        ]

    def list(
        self, kind: str | None = None, *, tenant: str | None = None, limit: int = 100
    ) -> builtins.list[Artifact]:
        """Return what is kept, the newest first, without its values."""
        return self.store.read(artifacts.listed, tenant, kind, limit)

    def prune(
        self, kind: str | None = None, *, version: str | None = None, older_than: str | None = None,
        expired: bool = False, tenant: str | None = None, dry_run: bool = False,
    ) -> int:  # fmt: skip
        """Remove artifacts, and return how many; each condition that is given must hold.

        Args:
            kind: of this kind.
            version: of this version.
            older_than: made longer ago than this, such as `30d`.
            expired: only those whose time is over.
            tenant: of this tenant.
            dry_run: only count them.
        """
        age = None if older_than is None else durations.seconds(older_than, "older_than")
        wish = Wish(tenant, kind, version, None if age is None else int(age * _MICROS), expired)
        if dry_run:
            return self.store.read(artifacts.old, wish)
        return self.store.transact(artifacts.prune, wish)

    def flush(self) -> None:
        """Write what was counted in memory."""
        run_inline(self.write(InlineRuntime()))

    def close(self) -> None:
        """Write what was counted, if the store still takes it: it is closed after this."""
        try:
            self.flush()
        except StoreUnavailable as error:
            _LOG.warning("look-ups of artifacts were not counted: %s", error.message)

    # For `cached`.

    def key(self, tenant: str) -> bytes:
        """Return the tenant's secret for hashes."""
        found = self._keys.get(tenant)
        if found is None:
            found = self._keys[tenant] = self.store.transact(artifacts.key_of, tenant)
        return found

    def count(self, group: Group, *, hit: bool, saved: int = 0) -> bool:
        """Count a look-up in memory; return whether it is time to write."""
        with self._lock:
            hits, misses, nanos_saved = self._counted.get(group, (0, 0, 0))
            self._counted[group] = hits + hit, misses + (not hit), nanos_saved + saved
            waiting = sum(h + m for h, m, _ in self._counted.values())
            return waiting >= FLUSH_AFTER or time.monotonic() - self._since > FLUSH_SECONDS

    def drain(self) -> dict[Group, tuple[int, int, int]]:
        """Take what was counted, to write it."""
        with self._lock:
            taken, self._counted, self._since = self._counted, {}, time.monotonic()
            return taken

    def give_back(self, taken: Mapping[Group, Counts]) -> None:
        """Count on from what could not be written."""
        with self._lock:
            for group, counts in taken.items():
                before = self._counted.get(group, (0, 0, 0))
                hits, misses, saved = (a + b for a, b in zip(before, counts, strict=True))
                self._counted[group] = hits, misses, saved

    async def commit(self, runtime: Runtime, verb: Callable[..., T], *args: Any) -> T:
        """Run one verb that also writes what was counted; count on from that if it fails.

        Raises:
            StoreUnavailable: the store did not take it.
        """
        taken = self.drain()
        try:
            return await runtime.commit(self.store, verb, *args, taken)
        except StoreUnavailable as error:
            if not error.uncertain:  # rather counted once too little than twice
                self.give_back(taken)
            raise

    async def write(self, runtime: Runtime) -> None:
        """Write what was counted."""
        if self._counted:
            await self.commit(runtime, artifacts.count)


_ALL: weakref.WeakSet[Artifacts] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for shelf in list(_ALL):
        shelf.renew()


os.register_at_fork(after_in_child=_after_fork_in_child)


__all__ = ["FLUSH_AFTER", "Artifact", "Artifacts", "Rate"]
