"""Observability: traces that go somewhere, service levels, and times that stay as they are."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ..slos import outcome_of
from .looking import (
    RUNS_NEEDED,
    counted,
    failed,
    holds,
    in_file,
    newest_runs,
    passed,
    percent,
    too_few,
    unknown,
)
from .statistics import median, quantile
from .values import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..slos import Slo
    from .project import Project
    from .sample import Sample, Seen
    from .values import Said

STEADY: Final = Decimal("1.5")
TIMED: Final = 40
"""Twenty runs on either side of the middle."""
_INSTANT = Decimal("0.05")
"""Times below this many seconds are not told apart."""


def _trace(project: Project) -> Said:
    trace = project.settings.trace
    return holds(trace != "none", f"spans go to {trace}", "no span is emitted",
                 "trace: opentelemetry under logging:")  # fmt: skip


def _exporter(project: Project) -> Iterator[Said]:
    found = project.telemetry
    mend = "OTEL_EXPORTER_OTLP_ENDPOINT, or agentguard.otel.set_up(NAME) in a module under --tools"
    if not found.sdk:
        yield failed("opentelemetry-sdk is not installed", "pip install 'agentguard[otel]'")
    elif found.off:
        yield failed(f"{found.off} switches spans off", f"unset {found.off}")
    elif found.provider and found.idle:
        yield failed(f"{found.provider} is set and has no span processor: spans end there", mend)
    elif found.provider or found.targets:
        yield passed(" and ".join(filter(None, (found.provider, ", ".join(found.targets)))))
    else:
        yield unknown("no provider and no endpoint is set where this check runs", mend)


def _retention(project: Project) -> Said:
    days = project.settings.retention_days
    told = f"{days} days are said, and erasing is yours"
    return holds(days, told, "nobody says how long contents are kept",
                 "retention_days: 30 under logging:")  # fmt: skip


def _slos(project: Project) -> Said:
    found = _of_workflow(project)
    named = ", ".join(f"{slo.name} ({slo.sli} {slo.target})" for slo in found)
    whose = f" of {project.workflow}" if project.workflow else ""
    mend = "slos: {success: {workflow: NAME, sli: success, target: 0.95, window: 28d}}"
    return holds(found, named, f"there is no service level{whose}", mend)


def _of_workflow(project: Project) -> list[Slo]:
    return [
        slo for slo in project.settings.slos
        if slo.workflow is not None and project.workflow in (None, slo.workflow)
    ]  # fmt: skip


def _time(sample: Sample, project: Project) -> Said:
    del project
    times = [run.seconds for run in sample.completed]
    if len(times) < TIMED:
        return too_few(
            len(times), "half of them is held against the other", needed=TIMED, what="completed run"
        )
    half = len(times) // 2
    before, after = times[:half], times[half:]
    ratios = {
        "median": _ratio(median(before), median(after)),
        "p90": _ratio(quantile(before, 90), quantile(after, 90)),
    }
    told = (
        f"{_seconds(before)} in the older half of {len(times)} runs, {_seconds(after)} in the newer"
    )
    wrong = [
        f"{name} by a factor of {ratio:.1f}" for name, ratio in ratios.items() if ratio > STEADY
    ]
    return holds(not wrong, told, f"{told}: {', '.join(wrong)}", "agentguard runs list, and look at"
                 " the slowest with agentguard runs show RUN")  # fmt: skip


def _ratio(one: Decimal, other: Decimal) -> Decimal:
    low, high = sorted((max(one, _INSTANT), max(other, _INSTANT)))
    return high / low


def _seconds(times: Sequence[Decimal]) -> str:
    return f"median {_took(median(times))}, p90 {_took(quantile(times, 90))}"


def _took(seconds: Decimal) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _escalation(sample: Sample, project: Project) -> Said:
    ended = sample.ended
    asked = sum(run.escalated for run in ended)
    told = f"people were needed in {asked:,} of {counted(len(ended), 'run')}"
    told += f" ({percent(asked, len(ended))})"
    slo = next((slo for slo in _of_workflow(project) if slo.sli == "escalation"), None)
    if slo is None:
        mend = "slos: {escalation: {workflow: NAME, sli: escalation, target: 0.8, window: 28d}}"
        return unknown(f"{told}; nobody says how many are fine", mend)
    return _within(slo, ended, told)


def _within(slo: Slo, ended: Sequence[Seen], told: str) -> Said:
    counted_so = [outcome_of(slo, run.fact) for run in ended]
    bad, valid = counted_so.count("bad"), len(counted_so) - counted_so.count(None)
    may = f"{slo.name} allows {100 * slo.budget:.1f} %"
    if valid < RUNS_NEEDED:
        return too_few(valid, f"so far: {told}; {may}")
    return holds(
        bad <= slo.budget * valid, f"{told}; {may}", f"{told}; {may}", "agentguard slo status"
    )


CHECKS = (
    Check("observability.trace", "observability", "minimum", "Calls leave spans",
          "One trace across models, tools and retries: without it nobody sees where time goes.",
          in_file("logging.trace", _trace)),
    Check("observability.exporter", "observability", "minimum", "Spans go to a collector",
          "A provider that the imported modules set, or an endpoint in the environment."
          " Unknown where neither is seen: a platform may set it later.",
          _exporter),
    Check("observability.retention", "observability", "minimum",
          "How long contents are kept is said",
          "What is kept for ever is lost at once some day. In this version the number is read and"
          " nothing is erased by it: keeping to it is yours.",
          in_file("logging.retention_days", _retention)),
    Check("observability.slos", "observability", "minimum", "The workflow has service levels",
          "What share of runs must come out well: without a number nobody knows when to stop.",
          in_file("slos", _slos)),
    Check("observability.time", "observability", "scale", "Completion times stay as they are",
          f"Median and p90 of the newer half are within a factor of {STEADY} of the older"
          f" half. Needs {TIMED} completed runs; waiting for people counts.",
          newest_runs(_time)),
    Check("observability.escalation", "observability", "scale",
          "People are needed as rarely as was said",
          "The share of runs that needed people, held against the service level with `sli:"
          f" escalation`; unknown without one. Needs {RUNS_NEEDED} runs.",
          newest_runs(_escalation)),
)  # fmt: skip
