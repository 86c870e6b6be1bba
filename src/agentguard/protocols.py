"""The ports: what the guarded call needs from a store, a clock and an agent runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Span

    from .errors import GuardError
    from .model import Approval

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")


class Clock(Protocol):
    """Time, injectable. The store's clock rules: expiry, windows and the record use it."""

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""
        ...


class Asked(NamedTuple):
    """A question that a verb is going to ask: for a row, for its lock, or to pass a gate.

    Attributes:
        early: it may be asked before the verbs that come first in the same transaction: whoever
            changes that row locks it by this question, or holds the lock that it is read *under*,
            or does not tell what it asks.
        under: the lock that holds this answer still.
    """

    how: Literal["row", "lock", "gate"]
    what: str
    values: tuple[Any, ...] = ()
    early: bool = False
    under: Asked | None = None


def foreseen(asks: Callable[..., Iterable[Asked]]) -> Callable[[F], F]:
    """Let a verb tell what it is going to ask; a store whose questions travel asks them together.

    Args:
        asks: gives the questions for the verb's arguments. They are asked in the verb's own words
            and order; what it does not ask then is only wasted.
    """

    def mark(verb: F) -> F:
        verb.asks = asks  # type: ignore[attr-defined]
        return verb

    return mark


class Tx(Protocol):
    """One transaction of a store; every ledger verb gets one and never commits it itself."""

    @property
    def now(self) -> int:
        """Microseconds since the epoch, read once per transaction and never running backwards."""
        ...

    @property
    def quarantine_us(self) -> int:
        """So long an owner that is lost but not proven dead may still act."""
        ...

    @property
    def one_file(self) -> bool:
        """Whether the rows lie in a file of ours, whose pages nobody else checks for damage."""
        ...

    @property
    def owner(self) -> str:
        """The process that runs this transaction."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Execute one statement; a store may have it wait for the next one that is answered."""
        ...

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        ...

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None."""
        ...

    def lock(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None; nobody else changes that row until this transaction ends."""
        ...

    def gate(self, name: str, *, alone: bool) -> None:
        """Wait until nobody is in the gate *name* alone, or for *alone* nobody at all.

        Whoever has passed it stays in it until the transaction ends.
        """
        ...

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        """Return all rows."""
        ...

    def is_dead(self, owner: str) -> bool:
        """Return whether *owner* is proven to be gone; False when that cannot be proven."""
        ...

    def is_lost(self, owner: str) -> bool:
        """Return whether *owner* is dead, or silent for longer than a living one would be."""
        ...

    def is_alive(self, owner: str) -> bool:
        """Return whether *owner* is seen to live; False when that cannot be seen."""
        ...

    def forget(self, owner: str) -> None:
        """Remove what is kept about an owner that is dead and owns nothing any more."""
        ...

    def after_commit(self, done: Callable[[], object]) -> None:
        """Call *done* once this transaction is durable, also if its caller never hears of that.

        It may be called twice.
        """
        ...


class OpenTransaction(Protocol):
    """One transaction that stays open over several verbs and over a tool's own statements.

    A store that can be shared so has a method `open()` that begins one; it belongs to the calling
    thread.
    """

    @property
    def connection(self) -> Any:
        """The database driver's connection, for the tool's own statements."""
        ...

    def apply(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in it; nothing is durable yet."""
        ...

    def keep(self) -> None:
        """Remember this point, after the start and before the tool's own statements."""
        ...

    def undo(self) -> None:
        """Go back to that point: what the tool's statements have done is undone."""
        ...

    def commit(self) -> None:
        """Make all of it durable, and end.

        Raises:
            StoreUnavailable: nothing of it is; with `uncertain`, all of it is or nothing.
        """
        ...

    def rollback(self) -> None:
        """Make nothing of it durable, and end. Ended already, nothing happens."""
        ...


class Store(Protocol):
    """A transactional engine. What is written, and when, is the ledger's; it is SQL once."""

    clock: Clock
    url: str

    def transact(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in one durable transaction.

        The verb may be run more than once, when another transaction got in its way; what it wrote
        before is undone then.

        Raises:
            StoreUnavailable: nothing was written; with `uncertain`, it is not known whether it was.
        """
        ...

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Queue *verb*; *done*(result, error) is called from the writer's thread."""
        ...

    def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run *query*(tx, *args) over the committed state; it cannot write."""
        ...

    def awake(self) -> float:
        """Return seconds on a clock that goes on while this process, or its machine, stands still."""
        ...

    def may_begin(self, since: float) -> bool:
        """Return whether nobody can have taken this process for lost after *since*, by `awake`.

        A start that was asked for then may begin its body now. What was renewed later is no
        answer: the process may have been lost in between, and its start given to somebody else.
        """
        ...

    def lifeline(self) -> tuple[int, ...]:
        """Return the descriptors that prove this process alive; a child that acts for it keeps them."""
        ...

    def check(self) -> str:
        """Return `ok`, or what is found wrong with what is stored."""
        ...

    def close(self) -> None:
        """Give up the connections; the proof of life stays while a body is still running."""
        ...


@dataclass(frozen=True, slots=True)
class CallRef:
    """Which call of the model this is, as the runtime knows it.

    Attributes:
        id: the runtime's tool call id.
        occurrence: counts equal calls under one id; models reuse ids.
        agent: the name of the agent or node that called, if the runtime knows it.
        seen: equal guarded calls inside this one execution of the tool; make a new object for
            every execution.
        begun: counts what runtimes begin inside this one execution.
    """

    id: str
    occurrence: int = 0
    agent: str | None = None
    seen: dict[tuple[str, str], int] = field(default_factory=dict, compare=False, repr=False)
    begun: dict[str, Iterator[int]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def path(self) -> str:
        """The id with its occurrence: how the ids of the calls inside begin."""
        return f"{self.id}#{self.occurrence}" if self.occurrence else self.id


class Host:
    """The agent runtime around a guarded call. Adapters override what their runtime can do.

    The default host is plain Python: nothing pauses, errors are raised as they are.
    """

    name = "python"
    control_flow: tuple[type[BaseException], ...] = ()
    """Exceptions by which the runtime steers itself; they pass through untouched."""

    def call(self) -> CallRef | None:
        """Return the model's call that is being executed, if the runtime can tell."""
        return None

    def pause(self, approval: Approval) -> None:
        """Pause until somebody may have decided, or return to let `ApprovalRequired` be raised.

        A return or a wake-up is never taken for a yes: the store is asked again.
        """

    def can_pause(self) -> bool:
        """Return whether `pause` can really pause here."""
        return False

    def tool_span(self, tool: str) -> Span | None:
        """Return the span that an instrumentation of this runtime has open for the call of *tool*.

        Asked where the current span is not that one.
        """
        del tool
        return None

    def edited(self, result: Any, edits: Mapping[str, Any]) -> Any:
        """Return what the runtime shows the model of a call whose arguments a person changed."""
        del edits
        return result

    def failure(self, error: GuardError) -> BaseException:
        """Return the exception to raise for *error*, so that the runtime treats it rightly."""
        return error
