"""agentguard: operate the AI agents you already run.

Decorate tools, wrap a graph, keep your runtime: no silent duplicate writes, approvals that bind
to exactly what runs, budgets that cannot be overshot, and a record of every run.
"""

from .approval import requires_approval
from .budget import budget
from .compensation import compensated_by
from .contract import tool_contract
from .errors import (
    ApprovalExpired,
    ApprovalRejected,
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    ContractViolation,
    DecisionRefused,
    EffectInDoubt,
    EffectInProgress,
    EffectRecordingFailed,
    ForbiddenAction,
    GuardError,
    IdempotencyConflict,
    LoopDetected,
    PermissionDenied,
    RateLimited,
    ResultUnavailable,
    RunHalted,
    StoreUnavailable,
    ToolFailed,
    ToolTimeout,
    VerificationFailed,
)
from .fallback import falls_back_to
from .guard import Guard, configure
from .idempotency import idempotent
from .model import Happened, NoEffect, NotHappened, Principal, Retry, Unknown, Verdict
from .run import current_run
from .verification import verified_by
from .workflows import workflow

__all__ = [
    "ApprovalExpired",
    "ApprovalRejected",
    "ApprovalRequired",
    "BudgetExceeded",
    "ConfigurationError",
    "ContractViolation",
    "DecisionRefused",
    "EffectInDoubt",
    "EffectInProgress",
    "EffectRecordingFailed",
    "ForbiddenAction",
    "Guard",
    "GuardError",
    "Happened",
    "IdempotencyConflict",
    "LoopDetected",
    "NoEffect",
    "NotHappened",
    "PermissionDenied",
    "Principal",
    "RateLimited",
    "ResultUnavailable",
    "Retry",
    "RunHalted",
    "StoreUnavailable",
    "ToolFailed",
    "ToolTimeout",
    "Unknown",
    "Verdict",
    "VerificationFailed",
    "budget",
    "compensated_by",
    "configure",
    "current_run",
    "falls_back_to",
    "idempotent",
    "requires_approval",
    "tool_contract",
    "verified_by",
    "workflow",
]
