"""A run's record as people read it: its events folded into steps."""

from .costs import Costs, costs_of
from .folding import fold, stops
from .plans import Drift, PlannedStep, drift
from .routes import RouteChange, route_changes
from .spending import run_spending, runs_that_spent, spent
from .stages import StageChange, changes
from .totals import Amount, NamedSpending, RunSpending, Spending, named, total
from .values import (
    Attempt,
    Checked,
    Duplicate,
    Question,
    Retrieved,
    Ruled,
    Step,
    StepKind,
    Stop,
    Vote,
)
from .verdicts import verdicts

__all__ = [
    "Amount",
    "Attempt",
    "Checked",
    "Costs",
    "Drift",
    "Duplicate",
    "NamedSpending",
    "PlannedStep",
    "Question",
    "Retrieved",
    "RouteChange",
    "Ruled",
    "RunSpending",
    "Spending",
    "StageChange",
    "Step",
    "StepKind",
    "Stop",
    "Vote",
    "changes",
    "costs_of",
    "drift",
    "fold",
    "named",
    "route_changes",
    "run_spending",
    "runs_that_spent",
    "spent",
    "stops",
    "total",
    "verdicts",
]
