"""LlamaIndex: a `FunctionAgent`, guarded by one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from workflows import Context
from workflows.events import InputRequiredEvent, StepState

from agentguard import Guard
from agentguard_llamaindex import guard_tools, guard_workflow

from .desk import INSTRUCTIONS, TOOLS, WHO, find_tickets, keep, kept
from .scripted.llamaindex import ScriptedModel


async def handle(task: str, guard: Guard, run_id: str, saved: Path) -> list[dict[str, Any]]:
    """Work on a task as far as it goes, or go on with it; return what waits for people."""
    crm = FunctionTool.from_defaults(find_tickets, name="crm-find_tickets")
    tools: list[Any] = [*TOOLS, *guard_tools([crm], guard)]
    bare = FunctionAgent(
        name="support", tools=tools, llm=ScriptedModel(), system_prompt=INSTRUCTIONS
    )
    agent = guard_workflow(bare, guard, principal=WHO)

    if begun := kept(saved):
        handler = agent.run(ctx=Context.from_dict(agent, json.loads(begun)))
    else:
        handler = agent.run(user_msg=task, run_id=run_id)
    async for event in handler.stream_events(expose_internal=True):
        ended = getattr(event, "step_state", None) == StepState.NOT_RUNNING
        if ended or isinstance(event, InputRequiredEvent):
            # Saved in the moment in which a step hands a call on, a context has it twice when it is
            # restored. The guard lets it happen once, and answers the other from the record.
            keep(saved, json.dumps(handler.ctx.to_dict()))
        if isinstance(event, InputRequiredEvent):
            await handler.cancel_run()  # until somebody has decided; it could wait as well
            return [dict(event.items())]
    await handler
    return []
