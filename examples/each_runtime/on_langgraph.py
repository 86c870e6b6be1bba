"""LangGraph: LangChain's `create_agent`, guarded by one line once it is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.sqlite import SqliteSaver

from agentguard import Guard
from agentguard_langgraph import guard_graph, guard_tools

from .desk import INSTRUCTIONS, TOOLS, WHO, find_tickets
from .scripted.langchain import ScriptedModel


def handle(task: str, guard: Guard, run_id: str, saved: Path) -> list[dict[str, Any]]:
    """Work on a task as far as it goes, or go on with it; return what waits for people."""
    crm = StructuredTool.from_function(find_tickets, name="crm-find_tickets")
    tools: list[Any] = [*TOOLS, *guard_tools([crm], guard)]
    with SqliteSaver.from_conn_string(str(saved)) as checkpoints:
        agent = create_agent(
            ScriptedModel(), tools, system_prompt=INSTRUCTIONS, checkpointer=checkpoints
        )
        graph = guard_graph(agent, guard, principal=WHO)

        thread: Any = {"configurable": {"thread_id": run_id}}  # also the run's id
        begun = graph.get_state(thread).values
        asked: Any = None if begun else {"messages": [("user", task)]}
        result = graph.invoke(asked, thread, durability="sync")
        return [paused.value for paused in result.get("__interrupt__", ())]
