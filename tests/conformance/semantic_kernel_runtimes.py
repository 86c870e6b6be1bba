"""Semantic Kernel as the conformance suite drives it: an agent, a chat service, a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from semantic_kernel.connectors.ai.function_calling_utils import (
    kernel_function_metadata_to_function_call_format,
)
from semantic_kernel.contents import AuthorRole
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelFunctionFromMethod, kernel_function

from agentguard import GuardError
from agentguard.testing.conformance import MODEL, QUESTION, Outcome, Runtime, Scene, Shown
from agentguard_semantic_kernel import guard_kernel, questions
from tests.semantic_kernel.world import Talk, call, kernel_of, results_in, scripted


class SemanticKernel(Runtime):
    """What the two ways to talk have in common."""

    kind: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = {
        "test_a_decision_through_the_runtimes_own_channel_counts": "Semantic Kernel has no channel"
        " for answers: decide by `guard.approvals.decide` or the command, then invoke again",
    }

    def shown(self, tools: Sequence[Callable[..., Any]]) -> list[Shown]:
        """Return what a connector sends as the tools of a request."""
        made = [KernelFunctionFromMethod(kernel_function(tool), "shop") for tool in tools]
        told = [kernel_function_metadata_to_function_call_format(f.metadata) for f in made]
        return [
            Shown(t["name"].removeprefix("shop-"), t["description"], t["parameters"])
            for t in (one["function"] for one in told)
        ]

    def play(self, scene: Scene) -> Outcome:
        """Do the same with synchronous functions, which run on Semantic Kernel's event loop."""
        return asyncio.run(self.aplay(scene))

    async def aplay(self, scene: Scene) -> Outcome:
        """Ask, or go on with the history that was saved."""
        outcome, saved = Outcome(), scene.folder / "history.json"
        kind = f"{self.kind} stream" if scene.stream else self.kind
        text = saved.read_text() if saved.exists() else None
        talk = Talk(kernel_for(scene), kind, text)
        try:
            said = await talk.ask(None if saved.exists() else QUESTION)
            if said[0].role is AuthorRole.ASSISTANT:
                outcome.said = str(said[0])
        except GuardError as error:
            outcome.error = error
        saved.write_text(talk.saved)
        outcome.chunks = talk.chunks
        outcome.waiting = tuple(q["approval_id"] for q in questions(talk.history))
        outcome.told = {
            str(r.id): str(r.result)
            for r in results_in(talk.history) if "agentguard_unfinished" not in r.metadata
        }  # fmt: skip
        return outcome


class Agent(SemanticKernel):
    """A `ChatCompletionAgent` with a thread."""

    name = "Semantic Kernel agent"
    kind = "agent"


class Service(SemanticKernel):
    """A chat service with a history, and functions that it calls by itself."""

    name = "Semantic Kernel chat"
    kind = "service"


def kernel_for(scene: Scene) -> Any:
    """Return a guarded kernel with a model that says what the scene's script says."""
    turns = [
        turn if isinstance(turn, str) else call(*((c.name, c.arguments, c.id) for c in turn))
        for turn in scene.script.turns
    ]
    said = turns if isinstance(turns[-1], str) else [*turns, "done"]
    kernel = kernel_of(scripted(*said, ai_model_id=MODEL), *scene.tools.values())

    async def retrying(context: Any, next: Callable[[Any], Any]) -> None:  # noqa: A002 - SK's name
        for left in reversed(range(1 + scene.retries)):
            with suppress(*[Exception] * bool(left)):
                await next(context)
                return

    kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, retrying)
    return guard_kernel(
        kernel, scene.guard, workflow="conformance", principal=scene.principal,
        run_id=scene.run_id, **scene.budget,
    )  # fmt: skip
