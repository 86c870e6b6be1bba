"""What a conformance test works with: a world, a store, a runtime, and other processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ... import Guard, Principal
from ...record import fold
from .processes import KILLED, PATIENCE, zygote
from .scene import MODEL, Outcome, Scene, Script, Turn
from .world import World, tools_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...model import Approval
    from ...protocols import Clock
    from ...record import Step
    from .runtime import Runtime

PRICES = {MODEL: ("0", "20000")}
"""A million tokens' price in US dollars: an answer of the scripted model costs 0.10."""
PRINCIPAL = Principal(agent="support", tenant="acme", subject="kim", scopes=frozenset({"tickets"}))


class Stage:
    """One runtime in one colour, with a world and a store of its own in one folder.

    Attributes:
        world: what really happens.
        guard: the guard; its tenant is `acme`.
    """

    def __init__(
        self, runtime: type[Runtime], colour: str, folder: Path, clock: Clock | None = None
    ) -> None:
        self.runtime, self.colour, self.folder = runtime, colour, folder
        self.world = World(folder)
        self.guard = Guard(self.url, clock=clock, principal=PRINCIPAL, prices=PRICES)

    @property
    def url(self) -> str:
        """The store."""
        return f"sqlite:///{self.folder}/agentguard.db"

    @property
    def is_async(self) -> bool:
        """Whether tools are `async def`, and the runtime is driven on an event loop."""
        return self.colour == "async"

    # Conversations.

    def scene(self, *turns: Turn, conversation: str = "talk", **options: Any) -> Scene:
        """Return a conversation; without *turns* the one that was begun goes on."""
        folder = self.folder / conversation
        folder.mkdir(exist_ok=True)
        script = folder / "script.json"
        if turns:
            script.write_text(Script(turns).dumps())
        tools = tools_of(self.world, is_async=self.is_async)
        return Scene(
            self.guard, tools, Script.loads(script.read_text()), folder,
            **options,
        )  # fmt: skip

    def play(self, *turns: Turn, **options: Any) -> Outcome:
        """Let the model say *turns*, or let the conversation go on; return what was seen."""
        scene = self.scene(*turns, **options)
        if self.is_async:
            return asyncio.run(self.runtime().aplay(scene))
        return self.runtime().play(scene)

    def play_together(self, scenes: Sequence[Scene]) -> list[Outcome]:
        """Play several conversations at the same time: in threads, or as tasks of one loop."""
        if not self.is_async:
            with ThreadPoolExecutor() as pool:
                return list(pool.map(lambda scene: self.runtime().play(scene), scenes))

        async def together() -> list[Outcome]:
            return await asyncio.gather(*(self.runtime().aplay(scene) for scene in scenes))

        return asyncio.run(together())

    # Other processes.

    def play_elsewhere(self, *turns: Turn, **options: Any) -> Outcome | None:
        """Play in a process of its own; None if it was killed there.

        Exceptions come back as their type's name and text; options must be JSON types.
        """
        if turns:
            self.scene(*turns, conversation=options.get("conversation", "talk"))
        told = json.dumps({
            "runtime": f"{self.runtime.__module__}:{self.runtime.__qualname__}",
            "colour": self.colour, "folder": str(self.folder), "options": options,
        })  # fmt: skip
        code = zygote(self.runtime.__module__).ask(told)
        if code == KILLED:
            return None
        if code:
            raise AssertionError(f"the other process ended with {code}; see its stderr")
        return Outcome(**json.loads((self.folder / "outcome.json").read_text()))

    def decide_elsewhere(self, approval_id: str, decision: str, *options: str) -> None:
        """Decide as a person does at a terminal: with the command `agentguard`."""
        words = [sys.executable, "-m", "agentguard", "approvals", decision, approval_id,
                 "--by", "dana", "--role", "finance", "--store", self.url, *options]  # fmt: skip
        subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)  # noqa: S603 - our own command

    # What the store says.

    def decide(self, approval_id: str, decision: str = "approve", **more: Any) -> None:
        """Decide as dana of the finance department."""
        given: dict[str, Any] = {"by": "dana", "roles": ["finance"], "reason": "looked it up"}
        self.guard.approvals.decide(approval_id, decision, **{**given, **more})

    def waiting(self) -> list[Approval]:
        """Return the approvals that wait."""
        return self.guard.approvals.list("pending", tenant="acme")

    def doubts(self) -> list[str]:
        """Return the tools whose effects are in doubt."""
        return [e.tool for e in self.guard.effects.list(state="in_doubt", tenant="acme")]

    def steps(self, run_id: str = "r-1") -> Sequence[Step]:
        """Return the steps of a run, as its record tells them."""
        return fold(self.guard.runs.events(run_id))

    def status(self, run_id: str = "r-1") -> str:
        """Return how a run stands."""
        return self.guard.runs.show(run_id).status
