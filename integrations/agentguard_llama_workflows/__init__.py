"""agentguard for LlamaIndex Workflows: guard workflows that use nothing else of LlamaIndex."""

from workflows import Context
from workflows.resource import (  # they mark parameters, and only their makers are public
    _Resource,  # pyright: ignore[reportPrivateUsage]
    _ResourceConfig,  # pyright: ignore[reportPrivateUsage]
)

from agentguard.hosting import annotated_as, register_injected

from ._host import LlamaIndexHost
from ._place import tool_call
from ._workflow import guard_workflow

__all__ = ["LlamaIndexHost", "guard_workflow", "tool_call"]

# What the engine fills in itself is no argument of a model's call.
register_injected(annotated_as(Context, _Resource, _ResourceConfig))
