"""Verification: rules that confirm each outcome, a clear way out, and outcomes that are confirmed."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ..fallback import TRIGGERS
from ..slos import wilson
from .looking import RUNS_NEEDED, every_write, failed, holds, newest_runs, passed, percent, unknown
from .values import Check

if TYPE_CHECKING:
    from .project import Project
    from .sample import Sample
    from .subjects import Subject
    from .values import Said

SURE: Final = Decimal("0.9")
_FURTHEST = 10_000


def _verifier(subject: Subject, project: Project) -> Said:
    del project
    checks = subject.verification.checks if subject.verification else ()
    names = ", ".join(check.name for check in checks)
    return holds(checks, f"verified by {names}", "nobody verifies its outcome",
                 "@verified_by(check), a callable(arguments, result)")  # fmt: skip


def _deterministic(subject: Subject, project: Project) -> Said:
    del project
    checks = subject.verification.checks if subject.verification else ()
    rules = [check.name for check in checks if check.identity.kind == "rule"]
    wrong = "only models or people verify it" if checks else "nobody verifies its outcome"
    mend = "@verified_by with a rule: it is asked first, costs nothing and is always there"
    return holds(rules, f"{', '.join(rules)} before all others", wrong, mend)


def _fallback(subject: Subject, project: Project) -> Said:
    if subject.fallback is not None:
        some = ", ".join(sorted(subject.fallback.on)) if subject.fallback.on != TRIGGERS else ""
        return passed(
            f"falls back to {subject.fallback.kind}" + (f" on {some} alone" if some else "")
        )
    whole = project.settings.falls_back_to
    wrong = "its run has no safe ending when it cannot be called"
    mend = '@falls_back_to("draft"), or falls_back_to: draft in the configuration'
    return holds(whole, f"its run falls back to {whole}", wrong, mend)


def _outcomes(sample: Sample, project: Project) -> Said:
    del project
    told = [run.verified for run in sample.ended if run.verified is not None]
    count, good = len(told), sum(told)
    low, high = wilson(good, count)
    seen = (
        f"{good:,} of {count:,} runs that wrote were verified ({percent(good, count)}), surely at"
        f" least {100 * low:.1f} %"
    )
    if low >= SURE and count >= RUNS_NEEDED:
        return passed(seen)
    if high < SURE or (count >= RUNS_NEEDED and Decimal(good) / count < SURE):
        return failed(f"{seen}; {100 * SURE:.0f} % are needed",
                      "agentguard runs list --status failed; agentguard effects list")  # fmt: skip
    more = _missing(good, count)
    least = f", of {RUNS_NEEDED} runs at least" if count < RUNS_NEEDED else ""
    return unknown(
        f"{seen}; {100 * SURE:.0f} % are needed{least}",
        f"{more:,} more verified runs, then check again",
    )


def _missing(good: int, count: int) -> int:
    """Return how many more runs, all of them verified, would be enough."""
    enough = (
        more for more in range(max(0, RUNS_NEEDED - count), _FURTHEST)
        if wilson(good + more, count + more)[0] >= SURE
    )  # fmt: skip
    return next(enough, _FURTHEST)


CHECKS = (
    Check("verification.verifier", "verification", "minimum", "Every write is verified",
          "What a tool returns is what it says it did, not what is true.",
          every_write(_verifier)),
    Check("verification.deterministic", "verification", "minimum",
          "Every write is verified by a rule first",
          "A model that judges a model can be wrong in the same way; a rule that reads the"
          " backend cannot.",
          every_write(_deterministic)),
    Check("verification.fallback", "verification", "minimum", "Every write has a safe ending",
          "When it times out or is refused, the run drafts, files a ticket or asks, and stops.",
          every_write(_fallback)),
    Check("verification.outcomes", "verification", "scale", "Outcomes are verified consistently",
          f"Of the runs that wrote, {SURE:%} succeeded and were confirmed, or what was refuted"
          f" was undone: Wilson's lower bound at 95 %, of {RUNS_NEEDED} runs at least. A run"
          " without a verdict counts as not verified.",
          newest_runs(_outcomes)),
)  # fmt: skip
