"""A worker: takes jobs from standard input, one a line, and hands each to the agent.

`python -m examples.refund_and_close_ticket.worker DIRECTORY [--store URL]`; with a store it is
guarded. A job is a thread and a ticket, such as `r-1001 T-1001`; it is answered with one line of
JSON. Given a thread that exists already, the worker goes on where the thread stopped: LangGraph's
checkpoints are in a file, so it does not matter whether the worker that began it is still alive.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from agentguard import Guard, GuardError, Principal
from agentguard_langgraph import guard_graph

from . import agent, tools

CONFIGURATION = Path(__file__).parent / "agent_run.yaml"


def bare(checkpoints: SqliteSaver) -> Any:
    """Build the agent as it was before agentguard."""
    return agent.build(tools.UNGUARDED, checkpoints)


def guarded(checkpoints: SqliteSaver, store: str) -> Any:
    """Build the same agent, guarded."""
    guard = Guard.from_config(CONFIGURATION, store=store, prices=agent.PRICES)
    who = Principal(agent="support-agent", version="1.4", scopes=tools.SCOPES)
    return guard_graph(agent.build(tools.GUARDED, checkpoints), guard, principal=who)


def handle(graph: Any, thread_id: str, ticket_id: str) -> dict[str, Any]:
    """Work on a ticket as far as it goes."""
    thread = {"configurable": {"thread_id": thread_id}}
    state = graph.get_state(thread)
    if state.values and not state.next:
        return {"model_calls": _calls(state), "ended": "done"}  # by this worker or another one
    task = None if state.next else {"messages": [("user", f"Handle ticket {ticket_id}")]}
    try:
        result = graph.invoke(task, thread, durability="sync")
    except GuardError as error:
        end: dict[str, Any] = {"ended": error.kind, "why": error.message}
    else:
        waits = [question.value for question in result.get("__interrupt__", ())]
        end = {"ended": "waits" if waits else "done", "waits": waits}
    return {"model_calls": _calls(graph.get_state(thread)), **end}


def _calls(state: Any) -> int:
    return sum(isinstance(message, AIMessage) for message in state.values["messages"])


def main(words: Sequence[str] | None = None) -> int:
    """Work until standard input ends."""
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("directory", type=Path, help="where checkpoints are kept")
    parser.add_argument("--store", help="agentguard's store; without one, nothing is guarded")
    arguments = parser.parse_args(words)
    db = sqlite3.connect(arguments.directory / "checkpoints.db", check_same_thread=False)
    checkpoints = SqliteSaver(db)
    graph = guarded(checkpoints, arguments.store) if arguments.store else bare(checkpoints)
    for line in sys.stdin:
        print(json.dumps(handle(graph, *line.split())), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
