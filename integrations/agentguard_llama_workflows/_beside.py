"""The span that an instrumentation beside us has open for a tool, and names only when it ends."""

# OpenInference has no public names for what it knows of a span that is open.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from typing import Any

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import active_span_id

_OPENINFERENCE = "openinference.instrumentation.llama_index"


def tool_span(tool: str) -> Any:
    """Return the span of the call of *tool* whose body runs here; None if nobody has one open."""
    if _OPENINFERENCE not in sys.modules:  # it is not for us to import it
        return None
    for handler in get_dispatcher().span_handlers:
        if type(handler).__module__.startswith(_OPENINFERENCE):
            found: Any = handler.open_spans.get(active_span_id.get() or "")
            if found is not None and found._attributes.get("tool.name") == tool:
                return found._otel_span
    return None
