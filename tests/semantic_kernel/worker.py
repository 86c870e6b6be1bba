"""A worker process that is killed inside a function: `worker.py FOLDER KIND bare|guarded [kill]`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agentguard import Guard, Happened, NotHappened, idempotent, tool_contract
from agentguard_semantic_kernel import guard_kernel
from tests.semantic_kernel.world import Talk, call, kernel_of, scripted
from tests.support import World


async def main(folder: Path, kind: str, subject: str, *, kill: bool) -> None:
    """Have ann and bob paid, in a conversation that is kept in a file after every turn."""
    world, saved = World(folder / f"{subject}.txt"), folder / f"{subject}.json"

    def pay(to: str) -> str:
        """Pay."""
        done = world.happen(to)
        if kill and to == "bob":  # after the effect, before anybody has recorded it
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def look(call: Any) -> Happened | NotHappened:
        to = call.arguments["to"]
        return Happened(f"found {to}") if to in world.effects else NotHappened()

    guarded = tool_contract(effect="write")(idempotent(key="pay:{to}", reconcile=look)(pay))
    guard = Guard(f"sqlite:///{folder}/agentguard.db")
    model = scripted(
        call(("pay", {"to": "ann"}, "1")), "ann is paid", call(("pay", {"to": "bob"}, "2")), "done"
    )
    kernel = kernel_of(model, pay if subject == "bare" else guarded)
    if subject == "guarded":
        guard_kernel(kernel, guard, run_id="r-1")
    talk = Talk(kernel, kind, saved.read_text() if saved.exists() else None)
    for text in ("pay ann", "pay bob")[0 if kill else 1 :]:
        await talk.ask(text)
        saved.write_text(talk.saved)
    guard.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], kill=sys.argv[-1] == "kill"))
