"""The span that an instrumentation beside us keeps for a tool's run, without making it current."""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

_OPENINFERENCE = "openinference.instrumentation.langchain"


def tool_span(tool: str) -> Any:
    """Return the span of the run of *tool* whose body runs here; None if nobody keeps one.

    LangChain names the run around a body as the parent of whatever the body calls.
    """
    if _OPENINFERENCE not in sys.modules:  # it is not for us to import it
        return None
    callbacks: Any = (var_child_runnable_config.get() or {}).get("callbacks")
    run = getattr(callbacks, "parent_run_id", None)
    for tracer in getattr(callbacks, "handlers", ()):
        if type(tracer).__module__.startswith(_OPENINFERENCE):
            made = tracer.run_map.get(str(run))
            if made and made.run_type == "tool" and (made.serialized or {}).get("name") == tool:
                return tracer.get_span(run)
    return None
