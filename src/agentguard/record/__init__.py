"""A run's record as people read it: its events folded into steps."""

from .folding import fold, stops
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

__all__ = [
    "Attempt",
    "Checked",
    "Duplicate",
    "Question",
    "Retrieved",
    "Ruled",
    "Step",
    "StepKind",
    "Stop",
    "Vote",
    "fold",
    "stops",
]
