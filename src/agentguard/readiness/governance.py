"""Governance: least privilege, people before what is risky, and a record that tells who did what."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .looking import (
    RUNS_NEEDED,
    about,
    counted,
    enough,
    every_write,
    failed,
    holds,
    in_file,
    newest_runs,
    no_tools,
    passed,
    undeclared,
    unknown,
    unusable,
)
from .values import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .project import Project
    from .sample import Sample
    from .subjects import Subject
    from .values import Said

_WRITES = re.compile(
    r"(?:^|[-.:/])(?i:add|approve|book|cancel|charge|close|comment|create|delete|drop|grant|insert|issue|merge|move|"
    r"pay|post|publish|purge|refund|remove|reset|revoke|send|set|submit|transfer|update|upload|void|"
    r"write)(?:[_\-A-Z]|$)"
)
"""Names of tools that begin so, after the name of their plugin if they have one, say that they write."""
_SHOWN = 3


def _scopes(subject: Subject, project: Project) -> Said:
    del project
    scopes = subject.contract.scopes if subject.contract else ()
    mend = 'scopes=["refunds:write"] in @tool_contract'
    return holds(scopes, f"needs {', '.join(scopes)}", "every agent may call it", mend)


def _principal(project: Project) -> Iterator[Said]:
    """Believe the record first: what code would give to runs is not what they had."""
    mend = 'Guard(principal=Principal("support", scopes=frozenset({"refunds:write"})))'
    runs = [run for run in project.record.runs if not run.broken] if project.record else []
    if runs:
        without = [run for run in runs if run.scopes is None]
        agents = ", ".join(sorted({run.info.agent for run in runs})[:_SHOWN])
        yield holds(
            not without, f"{counted(len(runs), 'run')} with scopes of their own, by {agents}",
            f"{counted(len(without), 'run')} of {len(runs)} had no scopes: their agent may do anything",
            mend,
        )  # fmt: skip
    elif project.principals:
        without_scopes = [who.agent for who in project.principals if who.scopes is None]
        named = ", ".join(who.agent for who in project.principals)
        wrong = f"{', '.join(without_scopes)} has no scopes and may do anything"
        yield holds(not without_scopes, f"{named} has scopes of its own", wrong, mend)
    else:
        action = "--tools MODULE:ATTRIBUTE of a Guard or a Principal, or --store with runs"
        yield unknown("nothing tells who acts", action)


def _approvals(subject: Subject, project: Project) -> Said | None:
    risky = [
        word for word, is_so in (
            ("moves money", subject.moves_money),
            ("cannot be undone", subject.contract is not None and subject.contract.irreversible),
        ) if is_so
    ]  # fmt: skip
    if not risky:
        return None
    if subject.sheet is None:
        return unusable(subject)
    autonomy = project.settings.autonomy
    stage = autonomy.ceiling(subject.name, "write") if autonomy else "auto"
    asks = [_when(subject)] if subject.approval else []
    asks += [
        f"{fact} over {project.settings.thresholds[fact]}"
        for fact in subject.sheet.facts
        if fact in project.settings.thresholds
    ]
    asks += [f"its stage is {stage}"] if stage != "auto" else []
    why = " and ".join(risky)
    return holds(asks, f"{why}; people decide: {', '.join(asks)}", f"{why}, and nobody is asked",
                 '@requires_approval(when="amount_usd > 50", roles=["finance"])')  # fmt: skip


def _when(subject: Subject) -> str:
    when = subject.approval.when if subject.approval else None
    return when if isinstance(when, str) else "by a callable" if when else "always"


def _category(project: Project) -> Iterator[Said]:
    if not project.subjects:
        yield no_tools(project)
        return
    known = [subject for subject in project.subjects if subject.effect is not None]
    odd = [s for s in known if s.effect == "read" and _WRITES.search(s.name)]
    for subject in odd:
        mend = '@tool_contract(effect="write"), or a waiver that says that it only reads'
        yield about(
            subject, failed("is declared as a read, and its name says that it writes", mend)
        )
    for subject in project.subjects:
        if subject.effect is None:
            yield about(subject, undeclared())
    if not odd and known:
        kinds = [sum(s.effect == kind for s in known) for kind in ("read", "write", "forbidden")]
        read, write, forbidden = kinds
        yield passed(f"{counted(read, 'read')}, {counted(write, 'write')}, {forbidden} forbidden")


def _autonomy(project: Project) -> Said:
    lines = project.settings.lines
    said = project.settings.autonomy is not None or any(
        key.partition(".")[0] == "autonomy" for key in lines
    )
    autonomy = project.settings.autonomy
    stage = (autonomy.default if autonomy else None) or "auto"
    return holds(said, f"{stage} where nothing else is said", "nobody says how far agents go alone",
                 "autonomy: approve in the configuration")  # fmt: skip


def _audit(sample: Sample, project: Project) -> Said:
    del project
    broken = [run.broken for run in sample.runs if run.broken]
    if broken:
        more = counted(len(broken), "run")
        return failed(f"{broken[0]} ({more} in all)", "agentguard doctor; restore a backup")
    whole = f"hash chains and rows of {counted(len(sample.runs), 'run')} are whole"
    return enough(len(sample.runs), passed(whole))


def _decisions(sample: Sample, project: Project) -> Said:
    seen = sample.tally
    if seen.nameless:
        return failed(
            f"{seen.nameless:,} of {counted(seen.decisions, 'decision')} of people give no reason",
            "agentguard approvals approve ID --by NAME --reason TEXT",
        )
    if seen.decisions:
        return passed(f"{counted(seen.decisions, 'decision')}, each with a name and a reason")
    asking = [subject for subject in project.subjects if subject.sheet and subject.sheet.rules]
    if project.subjects and not asking:
        return enough(len(sample.runs), passed("no tool that was given asks people"))
    return unknown(
        f"nobody was asked in {counted(len(sample.runs), 'run')}", "one decision, then check again"
    )


CHECKS = (
    Check("governance.scopes", "governance", "minimum", "Every write needs a scope",
          "Least privilege: an agent that was not given the scope cannot call it.",
          every_write(_scopes)),
    Check("governance.principal", "governance", "minimum",
          "Agents act under scopes of their own",
          "A principal without scopes may do whatever its tools' backends let it do. Read"
          " from the record; where there is none, from a Guard or a Principal among --tools.",
          _principal),
    Check("governance.approvals", "governance", "minimum", "People decide on risky writes",
          "A write that moves money or cannot be undone has an approval, a threshold, or a"
          " stage below auto.",
          every_write(_approvals, "no write that was given moves money or is irreversible")),
    Check("governance.category", "governance", "minimum", "Reads only read",
          "A tool that is declared as a read and named like a write runs without key, record"
          " and approval.",
          _category),
    Check("governance.autonomy", "governance", "minimum", "How far agents go alone is said",
          "draft, propose, approve or auto: auto by decision, not by default.",
          in_file("autonomy", _autonomy)),
    Check("governance.audit", "governance", "scale", "The record of every run is whole",
          "Each event follows from the one before by its hash, and each run's row bears its"
          f" seal. Needs {RUNS_NEEDED} runs.",
          newest_runs(_audit)),
    Check("governance.decisions", "governance", "scale",
          "Every decision has a name and a reason",
          "Who approved or rejected what, and why. Unknown while nobody was asked.",
          newest_runs(_decisions)),
)  # fmt: skip
