"""What adapters for agent runtimes build on: the port they implement and what they report to."""

from ._contexts import ain_own_context, in_own_context, setting
from ._dressed import dressed, undressing
from ._entry import Blocks, Entry, RunIdOf, Who
from ._judging import Judgement, ModelVerifier, model_verifier
from ._models import ModelCall
from ._reports import ModelReports
from ._routed import RoutedModels
from ._signature import annotated_as, register_injected
from ._tool_objects import ToolParts, register_tool_objects, takes_anything
from .protocols import CallRef, Host
from .questions import edits_note, hand_over, is_decision, question
from .retrieval import guarded_retrieval
from .run import Run, active_run

__all__ = [
    "Blocks",
    "CallRef",
    "Entry",
    "Host",
    "Judgement",
    "ModelCall",
    "ModelReports",
    "ModelVerifier",
    "RoutedModels",
    "Run",
    "RunIdOf",
    "ToolParts",
    "Who",
    "active_run",
    "ain_own_context",
    "annotated_as",
    "dressed",
    "edits_note",
    "guarded_retrieval",
    "hand_over",
    "in_own_context",
    "is_decision",
    "model_verifier",
    "question",
    "register_injected",
    "register_tool_objects",
    "setting",
    "takes_anything",
    "undressing",
]
