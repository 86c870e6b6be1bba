"""What goes into the ledger's verbs and what comes out of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..autonomy import Ladder
    from ..errors import GuardError
    from ..model import Approval, Effect, EffectState, Limits, Usage
    from ..slos import Slo

NEW_STEP = -1
"""In a draft: give this event, and those that follow with it, a step number of its own."""


@dataclass(slots=True)
class Draft:
    """An event before it has a place in the chain."""

    kind: str
    data: Mapping[str, Any]
    step: int | None = None
    content: Mapping[str, Any] | None = None
    actor: str | None = None


def end_kind(data: Mapping[str, Any]) -> str:
    """Return the kind of event that tells of a body's end: a retrieval says what it found."""
    return "retrieved" if "documents" in data else "step.finished"


@dataclass(slots=True)
class Pending:
    """Events of reads, and the usage they stand for, that ride along with the next commit.

    Attributes:
        spent: nano-dollars of costs among them; *unpriced*: nobody knows what one of them is.
        flying_steps: steps of reads that are under way, or whose events another commit is about to
            write; they count against the limits, so that no call is started in their room.
        flying_tools: how many of those are tool calls.
        written: they are durable, whatever became of the caller.
    """

    drafts: list[Draft] = field(default_factory=list)
    steps: int = 0
    tool_calls: int = 0
    spent: int = 0
    unpriced: bool = False
    flying_steps: int = 0
    flying_tools: int = 0
    written: bool = False

    def note_written(self) -> None:
        """Remember that the commit they rode along with is durable."""
        self.written = True


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run, and who acts in it.

    Attributes:
        last: its row as last seen or written from here, and the seal under which that stands.
    """

    tenant: str
    run_id: str
    actor: str
    last: list[Any] = field(default_factory=list, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """A wish to enter a run, new or known."""

    ref: RunRef
    workflow: str
    agent: str
    subject: str | None
    limits: Limits
    policy_version: str
    trace: str | None
    data: Mapping[str, Any]
    join: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """The run as it stands now that it is entered.

    Attributes:
        part: 1 for a new run, counting up with every resume.
        earlier_trace: W3C trace context of the earlier part, if it left one.
        planned: it has a plan.
    """

    part: int
    usage: Usage
    limits: Limits
    active_us: int
    started_at: int
    hash_key: bytes
    former_keys: bool
    earlier_trace: str | None
    planned: bool = False


class Closed(NamedTuple):
    """How a run stands once it is left, and how it came out (`agentguard.outcomes`)."""

    status: str
    outcome: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Ask:
    """The decision that people have to decide: which rule, and who may.

    Attributes:
        stage: `draft` or `propose` where the call is only written down, for a person to execute.
    """

    rule: str
    roles: tuple[str, ...] = ()
    quorum: int = 1
    expires: float = 86_400.0
    allow_edit: bool = False
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """One budget's share in a call.

    Attributes:
        name: the budget, such as `tool:issue_refund`.
        span: the run or the window of time it counts in.
        label: what the error calls it.
        amount: nano-dollars held for this call.
    """

    name: str
    span: str
    label: str
    max_calls: int | None
    max_spend: int | None
    amount: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """The circuit of a tool: so many *failures* in the window, and it is left alone for a while."""

    tool: str
    failures: int
    window_us: int
    cooldown_us: int


@dataclass(frozen=True, slots=True)
class Rate:
    """At most *burst* calls in *burst* times *interval_us* (GCRA, ITU-T I.371)."""

    interval_us: int
    burst: int
    text: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What one outcome did to a service level: *verdict* is good or bad.

    Attributes:
        before: the stage before, where the level moved it *after*; None where it did not.
    """

    slo: str
    verdict: str
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """The service levels that watch a tool or a workflow, in the order of their names.

    Attributes:
        tell: is told once what they have counted is durable.
    """

    slos: tuple[Slo, ...]
    tell: Callable[[Counted], object]

    @property
    def demotes(self) -> bool:
        """Whether one of them can take autonomy away."""
        return any(slo.demote is not None for slo in self.slos)


@dataclass(slots=True)
class Intent:
    """Everything the start transaction needs to know of a call.

    Attributes:
        undoes: the effect that it undoes.
        values: its arguments with their types, to hold them against the run's plan.
        plans: what this process remembers of that plan.
        plan: `outside` or `out of order`, once that is known.
        plan_step: the planned step that it uses up.
        ceiling: the stage that it has at the most; *begins*: what its tool has if it earned none.
        earned: the stage that its tool has earned, or is pinned at; read in the transaction.
        who: whom to ask where the stage says that people decide.
        proposal: what a proposal shows besides: what the evidence reader saw, what would change.
        executes: the approval of the draft that a person executes by this call.
        cost: nano-dollars for the run; None if nobody knows.
        probes: it tries whether a tool that failed works again; known in the transaction.
        workflow: of its run, for the question that is asked ahead.
        staged: the configuration says how far the agent goes alone with it; of reads, few are so.
        demoted: in which words a service level stands over it; known in the transaction.
        watch: the service levels of its tool.
    """

    run: RunRef
    key: str
    scope: str
    tool: str
    effect: str
    contract_version: str
    policy_version: str
    payload_hash: str
    claim_id: str
    rule: str
    arguments: Any
    ask: Ask | None = None
    input_schema: Mapping[str, Any] | None = None
    frozen_fields: tuple[str, ...] = ()
    call_id: str | None = None
    first: bool = False
    step: int | None = None
    attempt: int = 1
    cost: int | None = 0
    reservations: tuple[Reservation, ...] = ()
    rate: Rate | None = None
    breaker: Breaker | None = None
    probes: bool = False
    lease_us: int = 0
    dedupe_us: int | None = None
    undo: str | None = None
    agent: str = ""
    subject: str | None = None
    limits: Limits | None = None
    refusal: GuardError | None = None
    edits: Mapping[str, Any] | None = None
    pending: Pending | None = None
    undoes: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    plans: Any = None
    plan: str | None = None
    plan_step: int | None = None
    ceiling: str = "auto"
    begins: str = "auto"
    earned: str | None = None
    who: Ask | None = None
    proposal: Mapping[str, Any] | None = None
    executes: str | None = None
    workflow: str = ""
    staged: bool = False
    demoted: str | None = None
    watch: Watch | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The point of no return is passed: the body may run, once, under this fence.

    Attributes:
        repeat: an earlier body under this key may have acted; the backend drops repeats.
        row: as it was written.
    """

    step: int
    fence: int
    attempt: int
    counted: bool
    first_started_at: int
    edits: Mapping[str, Any] | None = None
    approval: Approval | None = None
    repeat: bool = False
    row: Any = None


@dataclass(frozen=True, slots=True)
class Replay:
    """The effect is final; its recorded end is the answer."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class Waiting:
    """People have not decided yet."""

    approval: Approval
    step: int
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Drafted:
    """The call is written down, for a person to execute."""

    approval: Approval
    step: int
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Unproven:
    """The call is to be a proposal: read its evidence, then begin again."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A draft that a person executes: the call that was written down, and no other.

    Attributes:
        by: who does.
        call_id: the runtime's id of the agent's call, if it had one.
    """

    approval: str
    by: str
    tool: str
    key: str
    step: int
    payload_hash: str
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Edited:
    """People approved other arguments: take them over, then begin again."""

    approval: Approval


@dataclass(frozen=True, slots=True)
class Busy:
    """A live owner is executing the same effect."""

    effect: Effect
    own: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Its owner is gone, and service levels have to count that: write it down, then begin again."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class Doubt:
    """It is not known whether the effect happened.

    Attributes:
        may_act: its body may still be at work, so a hook that is asked now cannot say that nothing
            happens, however late its answer is written down.
    """

    effect: Effect
    may_act: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The call does not start; the refusal is in the record."""

    error: GuardError
    step: int | None = None
    counted: bool = False


Answer = Started | Replay | Waiting | Drafted | Unproven | Edited | Busy | Lost | Doubt | Refused


@dataclass(slots=True)
class Settlement:
    """How an attempt ended, to be written under its fence; *struck* if that speaks against its tool.

    Attributes:
        watch: the service levels in which it counts; None where it does not, such as before a retry.
    """

    run: RunRef
    key: str
    fence: int
    step: int
    state: EffectState
    data: Mapping[str, Any]
    result: str | None = None
    result_state: str | None = None
    error: Mapping[str, Any] | None = None
    doubt_reason: str | None = None
    content: Mapping[str, Any] | None = None
    verdicts: tuple[Mapping[str, Any], ...] = ()
    cost: int | None = None
    pending: Pending = field(default_factory=Pending)
    row: Any = None
    ladder: Ladder | None = None
    breaker: Breaker | None = None
    struck: bool = False
    watch: Watch | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether the settlement was written, and what the run has used now."""

    written: bool
    usage: Usage


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A start whose caller was interrupted before its end was written.

    Attributes:
        claim_id: names the start; its fence is not known if its commit was interrupted.
        end: how it ended, if that is known already.
        began: the body may have begun.
        may_act: it may still be at work, in a thread of its own.
        watch: the service levels of its tool.
    """

    run: RunRef
    key: str
    claim_id: str
    end: Settlement | None
    began: bool
    may_act: bool
    watch: Watch | None = None
