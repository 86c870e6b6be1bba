"""A worker process that is killed inside a node: `python worker.py FOLDER bare|guarded [kill]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver

from agentguard import Guard, Happened, NotHappened, idempotent, tool_contract
from agentguard_langgraph import guard_graph
from tests.langgraph.world import HELLO, Scripted, call, looped, say, thread
from tests.support import World


def main(folder: Path, kind: str, *, kill: bool) -> None:
    """Run or resume the graph on a checkpointer in a file."""
    world = World(folder / f"{kind}.txt")

    def pay(to: str) -> str:
        """Pay."""
        done = world.happen(to)
        if kill:  # after the effect, before anybody has recorded it
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def look(call: Any) -> Happened | NotHappened:
        to = call.arguments["to"]
        return Happened(f"found {to}") if to in world.effects else NotHappened()

    guarded = tool_contract(effect="write")(
        idempotent(key="pay:{to}", reconcile=look, on_doubt="reconcile")(pay)
    )
    guard = Guard(f"sqlite:///{folder}/agentguard.db")
    model = Scripted(script=[call(("pay", {"to": "ann"}, "1")), say()])
    with SqliteSaver.from_conn_string(str(folder / f"{kind}.checkpoints")) as saver:
        builder = looped(model, [tool(pay if kind == "bare" else guarded)])
        plain = builder.compile(checkpointer=saver)
        graph = plain if kind == "bare" else guard_graph(plain, guard)
        resumed = bool(graph.get_state(thread()).next)
        graph.invoke(None if resumed else HELLO, thread(), durability="sync")
    guard.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], kill=sys.argv[-1] == "kill")
