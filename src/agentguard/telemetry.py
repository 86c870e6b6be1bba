"""Spans through the OpenTelemetry API alone: no provider is set, no exporter is made.

Names follow the GenAI semantic conventions (Development); what they lack is `agentguard.*`.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .canonical import plain_text
from .errors import BudgetExceeded
from .model import dollars

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from .model import Usage
    from .protocols import CallRef
    from .redaction import Redactor
    from .tool import Call, Tool

OPERATION = "gen_ai.operation.name"
TOOL_NAME = "gen_ai.tool.name"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def _version() -> str:
    try:
        return metadata.version("agentguard")
    except metadata.PackageNotFoundError:
        return "0"


_VERSION = _version()
_TRACER = trace.get_tracer("agentguard", _VERSION)
_PROPAGATOR = TraceContextTextMapPropagator()
_ERRORS = frozenset({"error", "denied", "rejected", "skipped_budget"})
_OUTCOMES = {"succeeded": "success", "failed": "failure", "waiting": "pending"}


def start_workflow(workflow: str, run_id: str) -> Span:
    """Start the span of one part of a run."""
    return _TRACER.start_span(
        f"invoke_workflow {workflow}",
        kind=SpanKind.INTERNAL,
        attributes={
            OPERATION: "invoke_workflow",
            "gen_ai.workflow.name": workflow,
            "openinference.span.kind": "CHAIN",
            "agentguard.run.id": run_id,
            "agentguard.version": _VERSION,
        },
    )


def resumed(span: Span, part: int, earlier: str | None) -> None:
    """Say which part of its run this is, and link it to the one before."""
    span.set_attribute("agentguard.run.part", part)
    for link in _links(earlier):
        span.add_link(link.context)


def end_workflow(
    span: Span, status: str, error: BaseException | None, usage: Usage | None = None
) -> None:
    """End the span of a part; waiting for a person is not an error."""
    outcome = _OUTCOMES.get(status, status)
    if isinstance(error, BudgetExceeded):
        outcome = "budget_exceeded"
    span.set_attribute("agentguard.run.outcome", outcome)
    if usage is not None:
        span.set_attribute("agentguard.run.steps", usage.steps)
        span.set_attribute("agentguard.run.model_calls", usage.model_calls)
        span.set_attribute("agentguard.run.tool_calls", usage.tool_calls)
        span.set_attribute("agentguard.run.cost_usd", float(dollars(usage.spent)))
    if status == "failed" and error is not None:
        span.set_attribute("error.type", _type_of(error))
        span.set_status(Status(StatusCode.ERROR, _type_of(error)))
    span.end()


def _links(traceparent: str | None) -> list[Link]:
    if not traceparent:
        return []
    context = _PROPAGATOR.extract({"traceparent": traceparent})
    return [Link(trace.get_current_span(context).get_span_context())]


def traceparent(span: Span) -> str | None:
    """Return the W3C trace context of *span*, to be linked from a later part."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent")


class ToolSpan:
    """The one span of a tool call: the runtime's own if it has one open, else ours."""

    __slots__ = ("_own", "_redactor", "span")

    def __init__(
        self, tool: Tool, run_id: str, agent: str, ref: CallRef | None, redactor: Redactor
    ) -> None:
        current = trace.get_current_span()
        self._redactor = redactor
        self._own = not _is_tool_span(current, tool.name)
        self.span = _start_tool(tool, run_id, agent, ref) if self._own else current

    def end(
        self, outcome: str, error: BaseException | None, call: Call | None = None, value: Any = None
    ) -> None:
        """Say how the call ended. Waiting for a person is not an error."""
        span = self.span
        if span.is_recording():
            span.set_attribute("agentguard.tool.outcome", outcome)
            if call is not None:
                span.set_attributes(self._facts(call, value))
            if outcome in _ERRORS and error is not None:
                span.set_attribute("error.type", _type_of(error))
                span.set_status(Status(StatusCode.ERROR, _type_of(error)))
        if self._own:
            span.end()

    def _facts(self, call: Call, value: Any) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "agentguard.tool.attempt": call.attempt,
            "agentguard.tool.args_sha256": call.payload_hash,
            "agentguard.idempotency.key_sha256": call.idempotency_key or None,
            "agentguard.idempotency.replayed": call.replayed,
            "agentguard.policy.decision": call.decision,
            "agentguard.policy.rule": call.rule,
            "agentguard.approval.id": call.approval_id,
            "agentguard.run.step": call.step,
        }
        if captures_content():
            redact = self._redactor
            shown = redact.hide(call.tool.sensitive, call.plain)
            facts["gen_ai.tool.call.arguments"] = redact.scrub(plain_text(shown))
            facts["gen_ai.tool.call.result"] = redact.scrub(repr(value))
        return {name: fact for name, fact in facts.items() if fact is not None}


def _is_tool_span(span: Span, name: str) -> bool:
    """An instrumentation of the runtime has opened a span for this very call."""
    if not span.is_recording():
        return False
    attributes: Any = getattr(span, "attributes", None) or {}
    theirs = str(attributes.get(TOOL_NAME, ""))
    same = theirs == name or theirs.endswith("-" + name)
    return attributes.get(OPERATION) == "execute_tool" and same


def _start_tool(tool: Tool, run_id: str, agent: str, ref: CallRef | None) -> Span:
    attributes: dict[str, Any] = {
        OPERATION: "execute_tool",
        TOOL_NAME: tool.name,
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": agent,
        "openinference.span.kind": "TOOL",
        "agentguard.run.id": run_id,
        "agentguard.tool.effect": tool.effect,
    }
    if ref is not None:
        attributes["gen_ai.tool.call.id"] = ref.id
    return _TRACER.start_span(f"execute_tool {tool.name}", attributes=attributes)


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def captures_content() -> bool:
    """Return whether the standard switch allows arguments and results on spans."""
    return os.environ.get(_CAPTURE, "").upper() in ("SPAN_ONLY", "SPAN_AND_EVENT")
