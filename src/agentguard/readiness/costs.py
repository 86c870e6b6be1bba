"""Cost controls: budgets of every run, prices that are known, and costs that can be told beforehand."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ..prices import Tokens, prices_of
from .looking import (
    RUNS_NEEDED,
    counted,
    enough,
    every_write,
    failed,
    holds,
    in_file,
    newest_runs,
    passed,
    percent,
    unknown,
)
from .statistics import median, quantile
from .values import Check

if TYPE_CHECKING:
    from collections.abc import Callable

    from .project import Project
    from .sample import Sample
    from .subjects import Subject
    from .values import Said

SPREAD: Final = 3
RETRIED: Final = 10
"""Percent of what was spent."""


def _limit(name: str, key: str, example: str) -> Callable[[Project], Said]:
    """Look where a limit is declared; what code alone gives to runs stands in their record."""

    def judge(project: Project) -> Said:
        who = project.limits.get(name)
        if who:
            return passed(f"limited by {who}")
        mend = f"{key}: {example} in the configuration"
        runs = [run for run in project.record.runs if not run.broken] if project.record else []
        free = [run for run in runs if getattr(run.info.limits, name) is None]
        if not runs:
            return failed(f"nothing that was given says {key}", mend)
        if free:
            such = f"{len(free):,} of {counted(len(runs), 'run')} had no {key}"
            return failed(f"{such}, such as {free[-1].info.id}", mend)
        return enough(len(runs), passed(f"each of {counted(len(runs), 'run')} had a {key}"))

    return judge


def _prices(project: Project) -> Said:
    settings = project.settings
    mend = "prices: genai-prices under costs:, or models: {NAME: {input_usd: ..., output_usd: ...}}"
    if project.prices or settings.model_prices or settings.prices:
        missing = _unpriced(project)
        named = [*sorted(settings.model_prices), *filter(None, [settings.prices])]
        right = f"prices of {', '.join(named)}" if named else "the guard that was given has prices"
        return holds(not missing, right, f"nobody says what {', '.join(missing)} costs", mend)
    if settings.limits.max_model_calls == 0:
        return passed("no run may call a model")
    return _paid(project, mend)


def _paid(project: Project, mend: str) -> Said:
    """Look at what runs paid for models: prices that code gives to a guard are seen there alone."""
    runs = project.record.runs if project.record else ()
    called = [run for run in runs if run.info.model_calls and not run.broken]
    partly = [run for run in called if not run.complete]
    told = counted(len(called), "run")
    if not called:
        return failed("nothing that was given says what models cost", mend)
    if partly:
        such = f"{len(partly):,} of {told} with model calls, such as {partly[-1].info.id}"
        return failed(f"nobody knew what {such}, cost", mend)
    known = passed(f"every cost of {told} with model calls is known")
    return enough(len(called), known)


def _unpriced(project: Project) -> list[str]:
    """Return the models behind roles that have no price; of an alias alone nothing is known."""
    settings = project.settings
    prices = project.prices or prices_of(None, settings.prices, settings.model_prices)
    behind = {settings.models[a].model for a in settings.routing.values() if a in settings.models}
    now = dt.datetime.now(dt.UTC)
    return sorted(model for model in behind if prices.price(model, Tokens(1, 1), now) is None)


def _routing(project: Project) -> Said:
    routing = project.settings.routing
    told = ", ".join(f"{role} {model}" for role, model in sorted(routing.items()))
    return holds(routing, told, "nobody says which model does what",
                 "routing: {planner_model: ..., executor_model: ..., verifier_model: ...}")  # fmt: skip


def _budgets(subject: Subject, project: Project) -> Said | None:
    del project
    if not subject.moves_money:
        return None
    budget = subject.budget
    mend = '@budget(max_calls=3, max_spend_usd="200", cost="amount_usd")'
    if budget is None or (budget.max_spend is None and budget.max_calls is None):
        return failed("moves money without a budget of its own", mend)
    return passed(f"has a budget per {budget.per}")


def _loops(project: Project) -> Said:
    after = project.settings.limits.loops
    told = f"after {after} rounds" if after else "in their fourth round"
    return holds(after != 0, f"stopped {told}", "loops go on until a budget ends them",
                 "leave loops: off out")  # fmt: skip


def _predictable(sample: Sample, project: Project) -> Said:
    """What is only partly known says nothing of what a completion costs."""
    del project
    good = [run for run in sample.completed if run.verified is not False and run.complete]
    known = [run.info.spent_usd for run in good if run.info.spent_usd > 0]
    if len(known) < RUNS_NEEDED:
        done = counted(len(sample.completed), "completed run")
        return unknown(
            f"{len(known):,} of {done} were verified, or wrote nothing, and have a cost that is"
            f" known; {RUNS_NEEDED} are needed",
            "more runs, with prices of models or cost= of tools, then check again",
        )
    middle, high = median(known), quantile(known, 95)
    told = f"median ${_usd(middle)}, p95 ${_usd(high)} of {len(known):,} completed runs"
    return holds(high <= SPREAD * middle, told, f"{told}: more than {SPREAD} times the median",
                 "agentguard runs list, and agentguard runs show RUN of the dearest")  # fmt: skip


def _complete(sample: Sample, project: Project) -> Said:
    del project
    partly = [run for run in sample.runs if not run.complete]
    runs = counted(len(sample.runs), "run")
    if partly:
        return failed(f"in {len(partly):,} of {runs} a price was not known, such as {partly[-1].info.id}",
                      "models: {NAME: {input_usd: ..., output_usd: ...}} under costs:")  # fmt: skip
    return enough(len(sample.runs), passed(f"every cost of {runs} is known"))


def _retried(sample: Sample, project: Project) -> Said:
    del project
    spent = sum((run.info.spent_usd for run in sample.runs), Decimal(0))
    again = sum((run.retry_usd for run in sample.runs), Decimal(0))
    if not spent:
        return unknown(f"nothing was spent in {counted(len(sample.runs), 'run')}",
                       "prices of models and cost= of tools, then check again")  # fmt: skip
    told = f"${_usd(again)} of ${_usd(spent)} went into further tries"
    said = holds(again * 100 <= RETRIED * spent, told, f"{told}: more than {RETRIED} %",
                 "agentguard runs show RUN tells which calls are tried again")  # fmt: skip
    return enough(len(sample.runs), said)


def _capped(sample: Sample, project: Project) -> Said:
    del project
    free = [run for run in sample.runs if run.info.limits.max_spend is None]
    runs = counted(len(sample.runs), "run")
    if free:
        return failed(f"{len(free):,} of {runs} ({percent(len(free), len(sample.runs))}) had no"
                      " max_spend_usd", "max_spend_usd: 0.40 in the configuration")  # fmt: skip
    worst = max((run.info.spent_usd for run in sample.runs), default=Decimal(0))
    caps = [run.info.limits.max_spend for run in sample.runs]
    most = max((Decimal(cap) / 10**9 for cap in caps if cap is not None), default=Decimal(0))
    told = f"the dearest of {runs} cost ${_usd(worst)}, and none may cost more than ${_usd(most)}"
    return enough(len(sample.runs), passed(told))


def _usd(amount: Decimal) -> str:
    return f"{amount:.4f}".rstrip("0").ljust(len(f"{amount:.0f}") + 3, "0")


CHECKS = (
    Check("cost.steps", "cost controls", "minimum", "A run has a limit of steps",
          "In the configuration, or as @budget on a @workflow that is among --tools; else as"
          f" the runs on record have it, {RUNS_NEEDED} at least.",
          in_file("max_steps", _limit("max_steps", "max_steps", "10"))),
    Check("cost.model_calls", "cost controls", "minimum", "A run has a limit of model calls",
          "Each call costs money and time, and a confused agent makes many.",
          in_file("max_model_calls", _limit("max_model_calls", "max_model_calls", "6"))),
    Check("cost.spend", "cost controls", "minimum", "A run has a limit of money",
          "Room is reserved before each call, so the limit is never overshot.",
          in_file("max_spend_usd", _limit("max_spend", "max_spend_usd", "0.40"))),
    Check("cost.prices", "cost controls", "minimum", "Prices of models are known",
          "A cost that nobody knows is not zero: it makes the cost of its run incomplete."
          " Models behind roles are looked up; of an alias alone nothing is known. Prices that"
          f" code gives to a guard count if it is among --tools; else as {RUNS_NEEDED} runs with"
          " model calls tell.",
          in_file("costs", _prices)),
    Check("cost.routing", "cost controls", "minimum", "Which model does what is said",
          "Planning and checking need not cost the same.",
          in_file("routing", _routing)),
    Check("cost.budgets", "cost controls", "minimum", "Tools that move money have budgets",
          "The limit of a run is on what it costs; money that a tool moves needs a limit of"
          " its own.",
          every_write(_budgets, "no write that was given moves money")),
    Check("cost.loops", "cost controls", "minimum", "Loops are stopped",
          "An agent that repeats itself does not get better.",
          in_file("loops", _loops)),
    Check("cost.predictable", "cost controls", "scale",
          "What a completed run costs is predictable",
          f"p95 is at most {SPREAD} times the median, of completed runs that were"
          f" verified, or wrote nothing. Needs {RUNS_NEEDED} with a cost that is known.",
          newest_runs(_predictable)),
    Check("cost.complete", "cost controls", "scale", "Every cost is known",
          f"No run has a call whose price nobody knew. Needs {RUNS_NEEDED} runs.",
          newest_runs(_complete)),
    Check("cost.retries", "cost controls", "scale", "Little is spent on further tries",
          f"At most {RETRIED} % of what was spent. Needs {RUNS_NEEDED} runs.",
          newest_runs(_retried)),
    Check("cost.capped", "cost controls", "scale", "The worst case of a run is capped",
          f"Every run had a limit of money; the dearest is told. Needs {RUNS_NEEDED} runs.",
          newest_runs(_capped)),
)  # fmt: skip
