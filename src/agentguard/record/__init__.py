"""A run's record as people read it: its events folded into steps."""

from .costs import Costs, costs_of
from .folding import fold, stops
from .plans import Drift, PlannedStep, drift
from .stages import StageChange, changes
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
    "Attempt",
    "Checked",
    "Costs",
    "Drift",
    "Duplicate",
    "PlannedStep",
    "Question",
    "Retrieved",
    "Ruled",
    "StageChange",
    "Step",
    "StepKind",
    "Stop",
    "Vote",
    "changes",
    "costs_of",
    "drift",
    "fold",
    "stops",
    "verdicts",
]
