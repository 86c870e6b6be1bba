"""Plain Python: a loop around a model, its calls reported to the run by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentguard import ApprovalRequired, Guard, GuardError
from agentguard.hosting import Run, question

from .desk import INSTRUCTIONS, TOOLS, WHO, find_tickets, keep, kept
from .script import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, reply


def handle(task: str, guard: Guard, run_id: str, saved: Path) -> list[dict[str, Any]]:
    """Work on a task as far as it goes, or go on with it; return what waits for people."""
    find = guard.protect(find_tickets, name="crm-find_tickets")
    tools: dict[str, Any] = {tool.__name__: tool for tool in TOOLS} | {"crm-find_tickets": find}
    begun = kept(saved)
    messages: list[Any] = json.loads(begun) if begun else [["system", INSTRUCTIONS], ["user", task]]
    try:
        with guard.run(run_id=run_id, principal=WHO) as run:
            while True:
                if messages[-1][0] != "calls":
                    messages.append(ask(run, messages))
                    keep(saved, json.dumps(messages))
                if messages[-1][0] == "says":
                    return []
                messages.append(["told", use(run, tools, **messages[-1][1])])
    except ApprovalRequired as waits:
        return [question(waits.approval)]


def ask(run: Run, messages: list[Any]) -> Any:
    """Ask the model, which counts in the run."""
    asked = run.model_started(model=MODEL, messages=messages)
    said = reply(messages[1][1], [text for role, text in messages if role == "told"])
    run.model_finished(
        asked, output=str(said), input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
    )
    if isinstance(said, str):
        return ["says", said]
    return ["calls", {"call_id": said.id, "name": said.name, "arguments": said.arguments}]


def use(run: Run, tools: dict[str, Any], *, call_id: str, name: str, arguments: Any) -> str:
    """Make a call of the model's; return what the model is told."""
    try:
        with run.tool_call(call_id):
            return json.dumps(tools[name](**arguments))
    except ApprovalRequired:
        raise
    except GuardError as refusal:
        if refusal.halts:
            raise
        return refusal.for_model()
