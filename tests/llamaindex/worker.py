"""A process that runs an agent: `python worker.py FOLDER KIND DOES`.

KIND is bare or guarded. DOES is `run` (to the end), `kill` (killed after the effect, before any
record of it), `ask` (saves its context when it is asked, and ends), `die` (the same, and is killed
while it waits), or `resume` (goes on with the saved context).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agentguard import (
    Guard,
    Happened,
    NotHappened,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard_llamaindex import guard_workflow
from tests.llamaindex.world import agent, call, restored, tool, until_asked
from tests.support import World


def kill() -> None:
    """End this process, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def made(folder: Path, kind: str, does: str, guard: Guard) -> Any:
    """The agent, and its tools."""
    world = World(folder / f"{kind}.txt")

    def pay(to: str) -> str:
        """Pay."""
        done = world.happen(to)
        if does == "kill":
            kill()
        return done

    def look(call_: Any) -> Happened | NotHappened:
        to = call_.arguments["to"]
        return Happened(f"found {to}") if to in world.effects else NotHappened()

    guarded: Any = tool_contract(effect="write")(
        idempotent(key="pay:{to}", reconcile=look, on_doubt="reconcile")(pay)
    )
    if does in ("ask", "die", "resume"):
        guarded = requires_approval()(guarded)
    script = [call(("pay", {"to": "ann"}, "1")), "done"]
    plain = agent("FunctionAgent", script, [tool(pay if kind == "bare" else guarded)])
    return plain if kind == "bare" else guard_workflow(plain, guard)


async def work(workflow: Any, does: str, context: dict[str, Any]) -> dict[str, Any]:
    """Run the agent as far as it is meant to; return its context."""
    if does == "resume":
        handler = restored(workflow, context)
    else:
        handler = workflow.run(user_msg="hello", run_id="r-1")
    if does in ("ask", "die"):
        await until_asked(handler)
    else:
        await handler
    saved: dict[str, Any] = handler.ctx.to_dict()
    if does == "die":
        keep(saved)
        kill()
    return saved


SAVED = Path(sys.argv[1]) / "context.json"


def keep(context: dict[str, Any]) -> None:
    """Save a context."""
    SAVED.write_text(json.dumps(context), encoding="utf-8")


def main(folder: Path, kind: str, does: str) -> None:
    """Do it."""
    guard = Guard(f"sqlite:///{folder}/agentguard.db")
    context = json.loads(SAVED.read_text("utf-8")) if does == "resume" else {}
    context = asyncio.run(work(made(folder, kind, does, guard), does, context))
    if does == "ask":
        keep(context)
    guard.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
