"""Grades a project: every check of the list looks, and what the configuration waives is shown so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from . import costs, governance, observability, safety, verification
from .values import Check, Finding, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .project import Project
    from .values import Said

CHECKS: Final[tuple[Check, ...]] = (
    *safety.CHECKS, *verification.CHECKS, *governance.CHECKS, *observability.CHECKS, *costs.CHECKS,
)  # fmt: skip
"""The checklist."""


def grade(project: Project) -> Report:
    """Return what every check finds in *project*."""
    found = [_finding(check, said) for check in CHECKS for said in check.look(project)]
    waivers = project.settings.waivers
    graded = [_waived(finding, waivers) for finding in found]
    used = {name for each in graded if each.waived is not None for name in _names(each)}
    known = {check.id for check in CHECKS}
    unheard = [name for name in waivers if name.rpartition(":")[2] not in known]
    idle = [name for name in waivers if name not in used and name not in unheard]
    return Report(tuple(graded), tuple(idle), tuple(unheard))


def _finding(check: Check, said: Said) -> Finding:
    return Finding(
        check.area, check.id, check.title, check.level, said.status, said.evidence, said.action,
        said.tool, said.file, said.line,
    )  # fmt: skip


def _names(finding: Finding) -> tuple[str, ...]:
    """Return the names under which a finding can be waived, the closer one first."""
    return (f"{finding.tool}:{finding.id}", finding.id) if finding.tool else (finding.id,)


def _waived(finding: Finding, waivers: Mapping[str, str]) -> Finding:
    reasons = [waivers[name] for name in _names(finding) if name in waivers]
    if not reasons or finding.status == "pass":
        return finding
    return replace(finding, status="waived", waived=reasons[0])
