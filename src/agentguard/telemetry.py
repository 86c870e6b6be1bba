"""Spans through the OpenTelemetry API alone: no provider is set, no exporter is made.

Names follow the GenAI semantic conventions (Development); what they lack is `agentguard.*`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .canonical import jsonable, plain_text
from .errors import BudgetExceeded, ContractViolation
from .model import dollars

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from .model import Approval, Usage
    from .protocols import CallRef, Host
    from .redaction import Redactor
    from .tool import Call, Tool

OPERATION = "gen_ai.operation.name"
TOOL_NAME = "gen_ai.tool.name"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


_VERSION = "0.1.0"  # as in pyproject.toml; to ask the installation takes as long as half of us
_TRACER = trace.get_tracer("agentguard", _VERSION)
_PROPAGATOR = TraceContextTextMapPropagator()
_ERRORS = frozenset({"error", "denied", "rejected", "skipped_budget"})
_OUTCOMES = {
    "succeeded": "success", "failed": "failure", "waiting": "pending",
    "halted": "failure", "cancelled": "failure",
}  # fmt: skip


def start_workflow(workflow: str, run_id: str, *, traced: bool) -> Span:
    """Start the span of one part of a run; one that records nothing if it is not *traced*."""
    if not traced:
        return trace.INVALID_SPAN
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

    __slots__ = ("_own", "_redactor", "_token", "span")

    def __init__(
        self, tool: Tool, run_id: str, agent: str, ref: CallRef | None, redactor: Redactor,
        *, traced: bool, host: Host | None = None,
    ) -> None:  # fmt: skip
        theirs = _theirs(tool.name, host) if traced else trace.INVALID_SPAN
        self._redactor, self._token = redactor, None
        self._own = theirs is None
        self.span = _start_tool(tool, run_id, agent, ref) if theirs is None else theirs
        if not self.span.is_recording():
            return
        if self._own:  # what the body calls hangs below this span
            self._token = otel_context.attach(trace.set_span_in_context(self.span))
        else:
            self.span.set_attributes(_ours(tool, run_id))

    def end(
        self, outcome: str, error: BaseException | None, call: Call | None = None, value: Any = None
    ) -> None:
        """Say how the call ended. Waiting for a person is not an error."""
        span = self.span
        if self._token is not None:
            otel_context.detach(self._token)
        if span.is_recording():
            facts = {"agentguard.tool.outcome": outcome}
            facts |= {"agentguard.policy.decision": "deny"} if call is None else _facts(call)
            if call is not None and captures_content():
                facts |= self._content(call, value, returned=error is None)
            if error is not None:
                _tell(span, facts, error, outcome)
            span.set_attributes(facts)  # at once: every call of a span takes its lock
        if self._own:
            span.end()

    def _content(self, call: Call, value: Any, *, returned: bool) -> dict[str, str]:
        """Return arguments and result as JSON, without what is sensitive."""
        redact = self._redactor
        shown = redact.hide(call.tool.sensitive, call.plain)
        found = {"gen_ai.tool.call.arguments": plain_text(redact.scrub(shown))}
        if returned:
            try:
                plain = jsonable(value if call.retrieved is None else call.retrieved)
            except ContractViolation:
                plain = repr(value)
            found["gen_ai.tool.call.result"] = plain_text(redact.scrub({"": plain})[""])
        return found


def _facts(call: Call) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "agentguard.tool.attempt": call.attempt,
        "agentguard.tool.args_sha256": call.payload_hash,
        "agentguard.idempotency.replayed": call.replayed,
        "agentguard.policy.decision": call.decision,
    }
    some = (
        ("agentguard.idempotency.key_sha256", call.idempotency_key or None),
        ("agentguard.policy.rule", call.rule),
        ("agentguard.approval.id", call.approval_id),
        ("agentguard.run.step", call.step),
    )
    facts |= {name: fact for name, fact in some if fact is not None}
    if call.retrieved is not None:
        facts["agentguard.retrieval.documents"] = len(call.retrieved)
    return facts


def _tell(span: Span, facts: dict[str, Any], error: BaseException, outcome: str) -> None:
    """Say what went wrong; waiting for a person did not."""
    approval: Approval | None = getattr(error, "approval", None)
    if approval is not None:
        facts["agentguard.approval.id"] = approval.id
        facts["agentguard.approval.status"] = approval.status
    if outcome in _ERRORS:
        facts["error.type"] = _type_of(error)
        span.set_status(Status(StatusCode.ERROR, _type_of(error)))


def _theirs(tool: str, host: Host | None) -> Span | None:
    """Return the span that an instrumentation has open for this very call, if one has."""
    current = trace.get_current_span()
    if _is_tool_span(current, tool):
        return current
    found = host.tool_span(tool) if host is not None else None
    return found if found is not None and found.is_recording() else None


def _is_tool_span(span: Span, name: str) -> bool:
    """An instrumentation of the runtime has opened a span for this very call, and for it alone."""
    if not span.is_recording():
        return False
    attributes: Any = getattr(span, "attributes", None) or {}
    if "agentguard.run.id" in attributes:  # ours, or a guarded call's already
        return False
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


def _ours(tool: Tool, run_id: str) -> dict[str, str]:
    return {"agentguard.run.id": run_id, "agentguard.tool.effect": tool.effect}


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
