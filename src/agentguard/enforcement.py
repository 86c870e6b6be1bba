"""The doors of service levels: how they stand, what spent them, and what operators say to that."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from . import _metrics
from .errors import ConfigurationError
from .ledger import abandoned, levels
from .ledger.approvals import is_person
from .ledger.slos import over
from .ledger.values import Watch

if TYPE_CHECKING:
    from .ledger.levels import Level, Report
    from .ledger.slos import Head
    from .ledger.values import Counted
    from .slos import Slo

LONGEST_HOURS = 31 * 24
"""An override is not for good: what should not be enforced at all is said in the configuration."""
_MOST_DAYS = 366


class Slos:
    """What a guard's configuration says of service levels, and how they stand.

    Attributes:
        declared: the levels of the configuration, in the order of their names.
        of_tools: tool name → those that watch it.
        of_workflows: workflow name → those that watch it.
    """

    def __init__(self, guard: Any) -> None:
        self._guard = guard
        slos: tuple[Slo, ...] = guard.settings.slos
        self.declared = tuple(sorted(slos, key=lambda slo: slo.name))
        self.of_tools = _watches([slo for slo in self.declared if slo.tool is not None])
        self.of_workflows = _watches([slo for slo in self.declared if slo.tool is None])
        tools = [slo for slo in self.declared if slo.tool is not None]
        self._opened = {
            name: Watch(_sorted((*watch.slos, *tools)), told)
            for name, watch in self.of_workflows.items()
        }
        self._tools = Watch(_sorted(tools), told) if tools else None
        for slo in self.declared:
            _metrics.slo_known(slo.name)

    def at_opening(self, workflow: str) -> Watch | None:
        """Return what may come back when a run of *workflow* is opened; None if nothing can."""
        return self._opened.get(workflow, self._tools)

    def status(self, *, tenant: str | None = None) -> list[Level]:
        """Return how all levels stand, by their names; of this tenant or the guard's own.

        A level that this configuration does not declare is listed if it has taken autonomy away,
        or is overridden.
        """
        where = tenant or self._guard.principal.tenant
        found: list[Level] = self._guard.store.read(levels.standing, where, self.declared)
        return found

    def report(self, slo: str, *, days: int = 28, tenant: str | None = None) -> Report:
        """Return what a level counted day by day, and the runs that spent its error budget.

        Raises:
            ConfigurationError: the configuration does not declare it, or too many days.
        """
        if not 0 < days <= _MOST_DAYS:
            raise ConfigurationError(f"report: days={days}; give 1 to {_MOST_DAYS}")
        where = tenant or self._guard.principal.tenant
        found: Report = self._guard.store.read(levels.report, where, self._declared(slo), days)
        return found

    def review(self, *, tenant: str | None = None) -> int:
        """Give back what is due by rule, without waiting for an outcome; how many levels moved.

        Runs that are abandoned are counted before.
        """
        where, watch = tenant or self._guard.principal.tenant, Watch(self.declared, told)
        self.count_abandoned(where)
        if not self._guard.store.read(levels.has_due, where, watch):
            return 0
        found: int = self._guard.store.transact(levels.review, where, watch)
        return found

    def count_abandoned(self, tenant: str | None = None) -> None:
        """Count runs that nobody ends, where a level says after what time; of one tenant, or of all."""
        watches = [
            watch
            for watch in self.of_workflows.values()
            if any(slo.abandoned is not None for slo in watch.slos)
        ]
        if watches:
            store = self._guard.store
            for run in store.read(abandoned.found, watches, tenant):
                store.transact(abandoned.count, *run)

    def override(
        self, slo: str, *, by: str, reason: str, hours: float | None = None,
        until: dt.datetime | None = None, tenant: str | None = None,
    ) -> Head:  # fmt: skip
        """Lift what a level has taken away, and whatever it takes until then; it goes on counting.

        Args:
            slo: the level.
            by: the person who decides it.
            reason: why; it is recorded.
            hours: for so long, at most 31 days, or
            until: until then, with a time zone.
            tenant: in this tenant; the guard's own by default.

        Raises:
            ConfigurationError: nobody, no reason, no end, or no such level.
        """
        _check("override", slo, by, reason)
        now: int = self._guard.store.read(levels.time_of)
        end = _end(now, hours, until)
        if not now < end <= now + LONGEST_HOURS * 3_600_000_000:
            raise ConfigurationError(
                f"override {slo}: it must end, within {LONGEST_HOURS} hours; what is never to be"
                " enforced has demote: off in the configuration"
            )
        return self._said(slo, end, by, reason, tenant)

    def lift(self, slo: str, *, by: str, reason: str, tenant: str | None = None) -> Head:
        """End an override: what the level has taken away counts again, from this commit on.

        Raises:
            ConfigurationError: nobody, no reason, or no such level.
        """
        _check("lift", slo, by, reason)
        return self._said(slo, None, by, reason, tenant)

    def _said(self, slo: str, end: int | None, by: str, reason: str, tenant: str | None) -> Head:
        where, store = tenant or self._guard.principal.tenant, self._guard.store
        places = {over(found) for found in self.declared if found.name == slo}
        places |= set(store.read(levels.known, where, slo))
        if not places:
            raise ConfigurationError(f"{self._unknown(slo)}, and nothing was ever counted under it")
        heads: list[Head] = [
            store.transact(levels.override, where, slo, place, end, by, reason)
            for place in sorted(places)
        ]
        found = next((head for head in heads if head.stage is not None), heads[0])
        if found.stage is not None:
            lifted = (found.stage, "auto") if end else ("auto", found.stage)
            _metrics.autonomy_changed(slo, *lifted)
        return found

    def _declared(self, slo: str) -> Slo:
        for found in self.declared:
            if found.name == slo:
                return found
        raise ConfigurationError(self._unknown(slo))

    def _unknown(self, slo: str) -> str:
        names = ", ".join(found.name for found in self.declared) or "none; give --config FILE"
        return f"{slo!r} is no service level of this configuration, which has {names}"


def told(counted: Counted) -> None:
    """Tell the metrics of what is durable now."""
    if counted.verdict:
        _metrics.slo_outcome(counted.slo, counted.verdict)
    if counted.before is not None and counted.after is not None:
        _metrics.autonomy_changed(counted.slo, counted.before, counted.after)


def _watches(slos: list[Slo]) -> dict[str, Watch]:
    names = dict.fromkeys(slo.subject for slo in slos)
    return {name: Watch(tuple(slo for slo in slos if slo.subject == name), told) for name in names}


def _sorted(slos: Any) -> tuple[Slo, ...]:
    return tuple(sorted(slos, key=lambda slo: slo.name))


def _end(now: int, hours: float | None, until: dt.datetime | None) -> int:
    if (hours is None) == (until is None) or (until is not None and until.tzinfo is None):
        raise ConfigurationError("override: give hours or until, the latter with a time zone")
    if hours is not None:
        soon = 0 < hours <= LONGEST_HOURS  # neither is what is no number
        return now + int(hours * 3_600_000_000) if soon else now
    assert until is not None  # noqa: S101 - one of the two, see above
    since = until - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return int(since.total_seconds() * 1_000_000)


def _check(what: str, slo: str, by: str, reason: str) -> None:
    if not slo.strip() or not is_person(by) or not reason.strip():
        raise ConfigurationError(
            f"{what}: name the service level, the person (no agent is one) and why: slo, by, reason"
        )
