"""A tool as the pipeline sees it: one sheet, on which every promise writes its clause."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .model import NoEffect, Retry

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ._loops import Past
    from ._told import Told
    from ._verdicts import Check
    from .config import Settings
    from .errors import GuardError
    from .ledger.values import Ask, Breaker, Execution, Rate, Reservation
    from .model import Evidence, Principal
    from .protocols import CallRef

EffectKind = Literal["read", "write", "forbidden"]
DoubtPolicy = Literal["halt", "reconcile", "retry_same_key"]


class Stage(enum.IntEnum):
    """The order in which promises write on the sheet; the order on the page has no meaning."""

    CONTRACT = 1
    IDEMPOTENCY = 2
    APPROVAL = 3
    BUDGET = 4
    VERIFICATION = 5
    RETRIEVAL = 6
    COMPENSATION = 7
    FALLBACK = 8
    WORKFLOW = 9


class Duties(Protocol):
    """What the calls of a tool demand of those who verify them."""

    @property
    def checks(self) -> Sequence[Check]:
        """The verifiers that ask a model."""
        ...

    def demanded(self, call: Call, /) -> str:
        """Return how independent the verification of *call* must be."""
        ...

    def refusal(self, call: Call, proposers: Collection[str], /) -> GuardError | None:
        """Return why *call*, which these models may have proposed, may not start."""
        ...


class Policy(Protocol):
    """What one decorator declares; its room holds the decorator and this."""

    @property
    def stage(self) -> Stage:
        """Its place; two of one stage on a tool are refused."""
        ...

    def bind(self, tool: Tool, settings: Settings, /) -> None:
        """Check the declaration against the tool and write its clause on the sheet.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """What an exception says about the world.

    Attributes:
        no_effect: it is known that nothing happened.
        retryable: trying again can help and may be done by itself.
        final: trying again with the same arguments is pointless.
        retry_after: seconds that the backend asked to wait.
        conflict: the backend says that something is there already; ask the reconcile hook.
    """

    no_effect: bool = False
    retryable: bool = False
    final: bool = False
    retry_after: float | None = None
    conflict: bool = False


DOUBT = Failure()
"""The default for writes: it may have happened."""


class ToolRaised(Exception):
    """What a body raised in another process, under the name it has there.

    Attributes:
        failure: what that process read from it.
    """

    failure: Failure | None = None


def declared(error: BaseException, retry: Retry) -> Failure | None:
    """Return what the tool itself declared about *error*, if it did."""
    if isinstance(error, ToolRaised) and error.failure is not None:
        return error.failure
    if isinstance(error, NoEffect):
        return Failure(no_effect=True, retryable=error.retryable, final=not error.retryable)
    if retry.on and isinstance(error, retry.on):
        return Failure(no_effect=True, retryable=True)
    return None


class Arguments(Protocol):
    """How a tool's arguments are read, shown and passed on; the contract supplies it."""

    def read(
        self, instance: Any, args: Sequence[Any], kwargs: Mapping[str, Any], /
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return validated arguments and what the runtime gave besides.

        Raises:
            ContractViolation: they do not fit.
        """
        ...

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return *values* validated; for arguments that an approver edited."""
        ...

    def place(
        self, instance: Any, values: Mapping[str, Any], given: Mapping[str, Any], /
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments for the body."""
        ...

    def recall(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """Return some arguments as they were, from the plain JSON by which they were shown."""
        ...

    def write(self, values: Mapping[str, Any], /) -> str:
        """Return JSON text from which `restore` makes equal values, or raise `NotStorable`."""
        ...

    def restore(self, text: str, /) -> dict[str, Any]:
        """Return the values that `write` was given; they are not checked again."""
        ...


class Results(Protocol):
    """How a tool's result is checked, kept and given back."""

    def check(self, result: Any) -> Any:
        """Return the result as declared, or raise `ContractViolation`."""
        ...

    def write(self, result: Any) -> str:
        """Return JSON text from which `restore` makes the same result, or raise `NotStorable`."""
        ...

    def keep(self, result: Any) -> str:
        """Like `write`, and raise `NotStorable` too for what is too large for the record."""
        ...

    def restore(self, kept: str) -> Any:
        """Return the result that `keep` was given."""
        ...


@dataclass(slots=True, eq=False)
class Tool:
    """Everything the guarded call needs to know of one tool under one guard."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    arguments: Arguments
    results: Results
    version: str = "1"
    effect: EffectKind = "read"
    parameters: tuple[str, ...] = ()
    input_schema: Mapping[str, Any] | None = None
    scopes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    isolation: Literal["thread", "process"] | None = None
    retry: Retry = field(default_factory=lambda: Retry(attempts=1))
    rate: Rate | None = None
    sensitive: frozenset[str] = frozenset()
    irreversible: bool = False
    fails_when: Callable[[Any], Any] | None = None
    classify: Callable[[BaseException], Failure] = lambda _error: DOUBT
    key_of: Callable[[Call], tuple[str, Any]] | None = None
    key_fields: tuple[str, ...] = ()
    per_call: bool = False
    volatile: frozenset[str] = frozenset()
    reconcile: Callable[..., Any] | None = None
    on_doubt: DoubtPolicy = "halt"
    dedupe_seconds: float | None = None
    same_database: bool = False
    rules: list[Callable[[Call], Ask | None]] = field(default_factory=list)
    who: Ask | None = None
    reserve: Callable[[Call], tuple[tuple[Reservation, ...], int | None]] | None = None
    checks: list[Check] = field(default_factory=list)
    independence: str | None = None
    duties: Duties | None = None
    fixed_cost: int | None = None
    documents: Callable[[Any], list[dict[str, Any]]] | None = None
    undo: str | None = None
    evidence: Callable[..., Any] | None = None
    preview: Callable[..., Any] | None = None
    compensation: Any = None
    fallback: Any = None
    owner: str | None = None
    polls: bool = False
    circuit: Breaker | None = None
    policy: str = ""

    @property
    def durable(self) -> bool:
        """Whether a call needs the start transaction; plain reads ride along instead."""
        return bool(
            self.effect == "write" or self.rules or self.reserve or self.rate or self.circuit
        )

    @property
    def major(self) -> str:
        """The part of the version that changes what a key means."""
        return self.version.partition(":")[0].partition(".")[0]


@dataclass(slots=True, eq=False)
class Call:
    """One guarded call, as the tool's body and the reconcile hook see it.

    Attributes:
        tool: the tool's name is `tool.name`.
        arguments: validated arguments, without what the runtime injects.
        at: when the call came, in microseconds by the store's clock.
        step: the step of the run, once one was given out.
        idempotency_key: pass it downstream with a write; the same for all attempts.
        fence: counts the starts of the body under this key.
        attempt: 1 for the first try of this call.
        deadline: when the body must be done, or None.
        first_started_at: when the body was first started under this key.
        repeat: an earlier body under this key may have acted, and nobody knows; the backend drops
            repeats.
        decision: allow, deny or require_approval, because of *rule*.
        outer: the guarded call inside whose body this one was made, if any.
        stage: how far the agent may go by itself at the most; None where nothing is said of it.
        executes: the draft that a person executes by it.
        ask: what the rules want people to decide; valid once *ruled*, and never asked again.
        approval_id: the approval under which it runs or waits.
        edits: what an approver changed in the arguments, if anything.
        replayed: an earlier end of the same effect was given back; the body did not run.
        undoes: the effect that this call undoes.
        past: what of it is held against later calls.
        retrieved: what the record says of the documents that a retrieval returned.
        evidence: what the tool's reader saw before the body, and after it once that has ended.
        connection: for a tool with `same_database=True`, the driver's connection on which the
            store's transaction is open; what it writes there is committed with the record.
        told: what was learned of it on its way, for its span and its metrics.
    """

    tool: Tool
    run_id: str
    principal: Principal
    arguments: dict[str, Any]
    given: dict[str, Any]
    plain: dict[str, Any]
    payload_hash: str
    at: int
    ref: CallRef | None = None
    occurrence: int = 0
    step: int | None = None
    idempotency_key: str = ""
    scope: str = ""
    fence: int = 0
    attempt: int = 1
    deadline: dt.datetime | None = None
    first_started_at: dt.datetime | None = None
    repeat: bool = False
    decision: str = "allow"
    rule: str | None = None
    approval_id: str | None = None
    edits: Mapping[str, Any] | None = None
    replayed: bool = False
    ask: Ask | None = None
    ruled: bool = False
    stage: str | None = None
    executes: Execution | None = None
    undoes: str | None = None
    outer: Call | None = None
    retrieved: list[dict[str, Any]] | None = None
    past: Past | None = None
    evidence: Evidence | None = None
    connection: Any = None
    told: Told | None = field(default=None, repr=False)

    @property
    def id(self) -> str | None:
        """The runtime's id of the model's call, if it has one."""
        return self.ref.id if self.ref else None

    def place(self) -> list[Any]:
        """Return what names this call among all calls that the model made."""
        where = [self.ref.id, self.ref.occurrence] if self.ref else ["", 0]
        return [self.run_id, *where, self.occurrence, self.payload_hash]

    def facts(self) -> dict[str, Any]:
        """Return the facts that the contract declares, for thresholds."""
        return {fact: self.arguments.get(name) for fact, name in self.tool.facts.items()}
