"""The running LangGraph task: what its configuration says about thread, state and resume values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langgraph.config import get_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.runnables import RunnableConfig

# LangGraph hands these to every task; it exports no names for them.
_CHECKPOINTER = "__pregel_checkpointer"
_READ = "__pregel_read"
_SCRATCHPAD = "__pregel_scratchpad"
_TASK = "__pregel_task_id"


def configuration() -> RunnableConfig:
    """Return the configuration of what runs now; empty outside LangChain and LangGraph."""
    try:
        return get_config()
    except RuntimeError:
        return {}


def configurable(config: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Return the `configurable` part of *config*, or of what runs now."""
    found = (configuration() if config is None else config).get("configurable")
    return found or {}


def thread(config: Mapping[str, Any]) -> str | None:
    """Return the thread that *config* names, if it does."""
    found = configurable(config).get("thread_id")
    return None if found is None else str(found)


def is_task(config: Mapping[str, Any] | None = None) -> bool:
    """Return whether *config*, or what runs now, belongs to a task of a running graph."""
    return _TASK in configurable(config)


def can_pause() -> bool:
    """Return whether an interrupt raised here could ever be resumed."""
    here = configurable()
    return bool(here.get(_CHECKPOINTER)) and _SCRATCHPAD in here


def scratchpad() -> Any | None:
    """Return where LangGraph keeps the resume values of the running task."""
    return configurable().get(_SCRATCHPAD)


def state() -> Mapping[str, Any]:
    """Return the state of the graph that the running task belongs to."""
    read = configurable().get(_READ)
    channels = getattr(read, "args", ())[1:2]  # as langgraph.prebuilt reads it, too
    return read(list(channels[0])) if read and channels else {}


def agent_name() -> str | None:
    """Return the name that `create_agent` was given."""
    name = (configuration().get("metadata") or {}).get("lc_agent_name")
    return str(name) if name else None
