"""What happens to the tickets, the same on every runtime, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agentguard import Guard
from agentguard.model import Event, RunInfo

from ..refund_and_close_ticket import acts
from ..refund_and_close_ticket.report import Tally, happened
from ..refund_and_close_ticket.side import Side, run_of

SLOW_MS = 500
"""How long payments takes where the worker is killed: LlamaIndex saves beside its tools."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A way to run the agent; `on_<name>.py` is all there is of it.

    Attributes:
        needs: the modules that must be there.
        install: how to get them.
    """

    name: str
    title: str
    needs: tuple[str, ...] = ()
    install: str = "pip install httpx"

    def missing(self) -> list[str]:
        """List the modules that are not installed."""
        return [name for name in ("httpx", *self.needs) if not _is_there(name)]


RUNTIMES = (
    Runtime("plain", "plain Python"),
    Runtime(
        "langgraph", "LangGraph", ("langchain", "langgraph.checkpoint.sqlite"),
        'pip install "agentguard[langgraph]" langgraph-checkpoint-sqlite',
    ),
    Runtime(
        "semantic_kernel", "Semantic Kernel", ("semantic_kernel", "jsonschema_rs"),
        'pip install "agentguard[semantic-kernel,jsonschema]"',
    ),
    Runtime(
        "llamaindex", "LlamaIndex", ("llama_index.core", "workflows"),
        'pip install "agentguard[llamaindex]"',
    ),
)  # fmt: skip


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with a ticket.

    Attributes:
        live: lets it go wrong, and says what agentguard's record tells of it.
    """

    ticket_id: str
    story: str
    live: Callable[[Side], list[str]]


def lost(side: Side) -> list[str]:
    """Lose the replies to a refund and to a comment."""
    return acts.reply_lost(side)["T-1006"]


def approved(side: Side) -> list[str]:
    """Let somebody approve a refund, in a process of their own."""
    return acts.decided(side, "T-1003", "approve", "--by", "dana", "--role", "finance")


def killed(side: Side) -> list[str]:
    """Kill the worker between an effect and its record, and start another."""
    side.world.fault("payments", latency_ms=SLOW_MS)
    side.kill_after("payments", "T-1001")
    side.world.fault("payments", latency_ms=0)
    side.work("T-1001")
    return side.record("T-1001")


MISHAPS = (
    Mishap("T-1006", "payments pays and its reply is lost; so is the helpdesk's", lost),
    Mishap("T-1003", "75.50 is over the limit of 50", approved),
    Mishap("T-1001", "the worker is killed after payments has paid; another goes on", killed),
)


@dataclass(frozen=True, slots=True)
class Played:
    """What was seen of one runtime.

    Attributes:
        notes: what happened to each ticket, in order.
        runs: each ticket's run, and its events.
        effects: what the services' journals say happened to each ticket.
        broken: runs whose hash chain is not whole.
    """

    runtime: Runtime
    notes: Mapping[str, list[str]]
    runs: Mapping[str, tuple[RunInfo, list[Event]]]
    effects: Mapping[str, Tally]
    broken: list[str]


def play(runtime: Runtime, directory: Path, watch: Sequence[str] = ()) -> Played:
    """Let everything happen on one runtime, with two services of its own.

    Args:
        runtime: whose agent works.
        directory: where everything is kept.
        watch: words that tell the worker where its telemetry goes.
    """
    home = directory / runtime.name
    store = f"sqlite:///{(home / 'agentguard.db').resolve()}"
    with Side(home, store, ("examples.each_runtime.worker", runtime.name, *watch)) as side:
        notes = {mishap.ticket_id: mishap.live(side) for mishap in MISHAPS}
        return Played(runtime, notes, seen(store), happened(side.world), side.broken_records())


def seen(store: str) -> dict[str, tuple[RunInfo, list[Event]]]:
    """Read the record of every ticket's run."""
    guard = Guard(store)
    try:
        names = {mishap.ticket_id: run_of(mishap.ticket_id) for mishap in MISHAPS}
        return {t: (guard.runs.show(r), guard.runs.events(r)) for t, r in names.items()}
    finally:
        guard.close()
