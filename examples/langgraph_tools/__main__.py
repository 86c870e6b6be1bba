"""Let a scripted model use the shop's tools: `python -m examples.langgraph_tools`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agentguard import Guard
from agentguard_langgraph import guard_graph, guard_tools

from .shop import DONE, TOOLS

POLICY = Path(__file__).with_name("agent_run.yaml")
O1 = {"order_id": "O-1"}
SCRIPT = (
    ("find_order", O1),
    ("mail_customer", {**O1, "subject": "Your kettle", "text": "We are sorry."}),
    ("mail_customer", {**O1, "subject": "Your kettle", "text": "We are very sorry!"}),
    ("add_note", {**O1, "note": "called twice"}),
    ("add_note", {**O1, "note": "called twice"}),
    ("delete_order", O1),
)


class Script(FakeMessagesListChatModel):
    """A chat model that says what it is told to say."""

    def bind_tools(
        self,
        tools: Sequence[Any],  # noqa: ARG002 - LangChain's name; the script knows its tools
        **_: Any,
    ) -> Any:
        """Take any tools."""
        return self


def play(store: str = "sqlite:///langgraph_tools.db") -> list[BaseMessage]:
    """Run the agent once and return what was said."""
    calls = [{"name": n, "args": a, "id": f"call-{i}"} for i, (n, a) in enumerate(SCRIPT)]
    said: list[BaseMessage] = [AIMessage("", tool_calls=[call]) for call in calls]
    model = Script(responses=[*said, AIMessage("The customer has been told.")])
    guard = Guard.from_config(POLICY, store=store)
    graph = guard_graph(create_agent(model, guard_tools(TOOLS, guard)), guard)
    try:
        question = HumanMessage("The kettle of O-1 is broken.")
        return list(graph.invoke({"messages": [question]})["messages"])
    finally:
        guard.close()


def main() -> int:
    """Show what the tools answered, and what happened."""
    for message in play(*sys.argv[1:]):
        if isinstance(message, ToolMessage):
            print(f"{message.name:14} {message.content}")
    print("\nWhat happened in the shop:", *DONE, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
