"""What a conformance test asks of an agent runtime, and what it gets to see: plain values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

F = TypeVar("F", bound="Callable[..., Any]")

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ... import Guard, Principal

COLOURS = ("sync", "async")
QUESTION = "Please see to the tickets."
MODEL = "scripted-1"
INPUT_TOKENS, OUTPUT_TOKENS = 10, 5
"""What the scripted model says that each of its answers cost."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of the model, with arguments as a model writes them: JSON types."""

    name: str
    arguments: Mapping[str, Any]
    id: str


def only_in(*colours: str) -> Callable[[F], F]:
    """Mark a test as being about these colours only."""

    def mark(test: F) -> F:
        test.colours = colours  # type: ignore[attr-defined] # read where tests are made
        return test

    return mark


Turn = list[Call] | str
"""One answer of the model: tool calls, all in one message, or its last word."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the model will say; a pure function of how often it has spoken in the conversation."""

    turns: tuple[Turn, ...]

    def answer(self, spoken: int) -> Turn:
        """Return the turn that follows *spoken* earlier ones; past its end the model says done."""
        return self.turns[spoken] if spoken < len(self.turns) else "done"

    def dumps(self) -> str:
        """Return JSON text from which `loads` makes an equal script."""
        return json.dumps([t if isinstance(t, str) else [asdict(c) for c in t] for t in self.turns])

    @classmethod
    def loads(cls, text: str) -> Script:
        """Return the script that `dumps` was asked for."""
        turns = json.loads(text)
        return cls(tuple(t if isinstance(t, str) else [Call(**c) for c in t] for t in turns))


@dataclass(frozen=True, slots=True)
class Scene:
    """One conversation that a runtime has to play, from wherever it stands.

    Attributes:
        guard: the guard of the run.
        tools: decorated functions by name: what a user would hand to the runtime. `async def` in
            the async colour.
        script: what the model says.
        folder: where the runtime keeps what must outlive its process: checkpoints, history. An
            empty folder is a conversation that begins; another one goes on where it stopped.
        run_id: the run to enter or to go on with.
        principal: who acts; the guard's own principal if None.
        budget: what `Guard.run` takes, such as `max_steps`.
        stream: use the runtime's way to stream.
        retries: how often the runtime itself shall try a failed tool, step or node again.
        answer: a person's decision that comes through the runtime's own channel, if it has one.
    """

    guard: Guard
    tools: Mapping[str, Callable[..., Any]]
    script: Script
    folder: Path
    run_id: str = "r-1"
    principal: Principal | None = None
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stream: bool = False
    retries: int = 0
    answer: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Outcome:
    """What the caller of the runtime, and the model, got to see.

    Attributes:
        said: the model's last word; None if the conversation did not come to its end.
        told: what the model was told of each of its calls, by call id; calls that wait for a
            person or were never answered are left out.
        waiting: the approvals for which the caller can see that the run waits, by id.
        error: what the caller got instead of an answer.
        chunks: how many pieces came while streaming.
    """

    said: str | None = None
    told: dict[str, str] = field(default_factory=dict[str, str])
    waiting: tuple[str, ...] = ()
    error: BaseException | None = None
    chunks: int = 0

    def read(self, call_id: str) -> Mapping[str, Any]:
        """Return the error object that the model was told of a call."""
        found: Mapping[str, Any] = json.loads(self.told[call_id])
        return found


@dataclass(frozen=True, slots=True)
class Shown:
    """A tool as the runtime shows it to the model; *parameters* is JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def call(tool: str, ticket: str, call_id: str = "call-1", **arguments: Any) -> Call:
    """Return a call of one of the world's tools."""
    return Call(tool, {"ticket": ticket, **arguments}, call_id)


def calls(tool: str, tickets: Sequence[str], **arguments: Any) -> list[Call]:
    """Return one message with a call for each ticket, under the ids call-1, call-2 and so on."""
    return [call(tool, t, f"call-{n}", **arguments) for n, t in enumerate(tickets, 1)]
