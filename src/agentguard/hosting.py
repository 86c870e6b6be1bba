"""What adapters for agent runtimes build on: the port they implement and what they report to."""

from ._models import ModelCall
from ._signature import register_injected
from .protocols import CallRef, Host
from .questions import edits_note, hand_over, is_decision, question
from .retrieval import guarded_retrieval
from .run import Run, active_run

__all__ = [
    "CallRef",
    "Host",
    "ModelCall",
    "Run",
    "active_run",
    "edits_note",
    "guarded_retrieval",
    "hand_over",
    "is_decision",
    "question",
    "register_injected",
]
