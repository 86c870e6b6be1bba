"""The doors of staged autonomy: what a run is entered with, and what operators pin and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .autonomy import LOWEST_BY_DEFAULT, STAGES, Autonomy, Ladder
from .errors import ConfigurationError
from .ledger import autonomy as ledger
from .ledger.approvals import is_person

if TYPE_CHECKING:
    from .ledger.autonomy import Standing


def said(settings: Autonomy | None, stage: str | None) -> Autonomy | None:
    """Return what counts in a run; None if nobody says anything below `auto`.

    Raises:
        ConfigurationError: an unknown stage.
    """
    if stage is not None:
        checked(stage, "run")
    if settings is None and stage in (None, "auto"):
        return None
    return (settings or Autonomy()).in_run(stage)


def checked(stage: str, where: str) -> str:
    """Return a stage that there is.

    Raises:
        ConfigurationError: there is none such.
    """
    if stage not in STAGES:
        raise ConfigurationError(
            f"{where}: autonomy={stage!r} is no stage; there are {', '.join(STAGES)}"
        )
    return stage


def pin(
    guard: Any, tool: str, stage: str | None, by: str, reason: str, tenant: str | None
) -> Standing:
    """Pin a tool, or with None take its pin away."""
    _check("pin" if stage else "unpin", tool, by, reason)
    where = tenant or guard.principal.tenant
    found: Standing = guard.store.transact(ledger.pin, where, tool, stage, by, reason)
    return found


def incident(guard: Any, tool: str, by: str, reason: str, tenant: str | None) -> Standing:
    """Take a tool one stage down."""
    _check("incident", tool, by, reason)
    rules = guard.settings.autonomy or Autonomy()
    ladder = rules.ladder(tool) or Ladder(tool, rules.begins(tool), None, LOWEST_BY_DEFAULT)
    where = tenant or guard.principal.tenant
    found: Standing = guard.store.transact(ledger.incident, where, ladder, by, reason)
    return found


def _check(what: str, tool: str, by: str, reason: str) -> None:
    if not tool.strip() or not is_person(by) or not reason.strip():
        raise ConfigurationError(
            f"{what}: name the tool, the person (no agent is one) and why: tool, by, reason"
        )
