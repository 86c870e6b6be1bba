"""Spans through the OpenTelemetry API alone: no provider is set, no exporter is made.

Names follow the GenAI semantic conventions (Development); what they lack is `agentguard.*`. What
breaks here, in a provider, a sampler or a processor, reaches nobody's call.
"""

from __future__ import annotations

import functools
import inspect
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import _callfacts, _evaluations, _metrics
from ._scope import OPERATION, SCOPE, TOOL_NAME, VERSION, WORKFLOW, broken
from ._told import Told
from .canonical import jsonable, plain_text
from .errors import ContractViolation
from .model import dollars
from .protocols import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.trace import Span

    from .model import Principal, Usage
    from .protocols import CallRef
    from .redaction import Redactor
    from .tool import Call, Tool

_TRACER = trace.get_tracer(SCOPE, VERSION)
_PROPAGATOR = TraceContextTextMapPropagator()
_LONGEST_DESCRIPTION = 500


class Heard(NamedTuple):
    """Who listens to a part of a run, as it was when that began: nobody is told in vain."""

    spans: bool = True
    metrics: bool = True
    events: bool = True


class Running(Protocol):
    """What spans and metrics need from a run."""

    id: str
    workflow: str
    principal: Principal
    hash_key: bytes
    redactor: Redactor
    around: Any
    verdicts: Sequence[Mapping[str, Any]]
    heard: Heard

    @property
    def host(self) -> Host:
        """The agent runtime at work here."""
        ...

    @property
    def usage(self) -> Usage:
        """What the run has used, as far as this process knows."""
        ...


def told(call: Call) -> Told:
    """Return what was learned of *call* so far, to add to it."""
    if call.told is None:
        call.told = Told()
    return call.told


def heard() -> Heard:
    """Return for whom spans and metrics are made from now on."""
    own = isinstance(_TRACER, trace.ProxyTracer)  # as it is, unless somebody gave us a tracer
    nobody = own and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return Heard(not nobody, _metrics.heard(), _evaluations.heard())


# The part of a run.


def start_workflow(run: Running) -> Span:
    """Start the span of one part of a run; one that records nothing if the run is not traced."""
    if not run.around.traced:
        run.heard = Heard(spans=False, metrics=False, events=False)
        return trace.INVALID_SPAN
    run.heard = heard()
    if not run.heard.spans:
        return _unrecorded()
    attributes = {
        OPERATION: "invoke_workflow",
        WORKFLOW: run.workflow,
        "openinference.span.kind": "CHAIN",
        "agentguard.run.id": run.id,
        "agentguard.version": VERSION,
    }
    return _started(f"invoke_workflow {run.workflow}", attributes)


def resumed(span: Span, part: int, earlier: str | None) -> None:
    """Say which part of its run this is, and link it to the one before."""
    if not span.is_recording():
        return
    try:
        span.set_attribute("agentguard.run.part", part)
        for link in _links(earlier):
            span.add_link(link.context)
    except Exception as error:  # noqa: BLE001 - no run fails because its span cannot be told of it
        broken("a span", error)


def end_workflow(
    span: Span, run: Running, outcome: str | None, error: BaseException | None,
    seconds: float | None = None,
) -> None:  # fmt: skip
    """End the span of a part; waiting for a person is not an error.

    Args:
        span: as `start_workflow` has returned it.
        run: whose part it is.
        outcome: how the run came out; None if it goes on elsewhere.
        error: by which the part was left.
        seconds: for how long the run was executed in all; None if it could not be entered.
    """
    if not run.around.traced:
        return
    if run.verdicts:
        _verdicts(run, span, run.verdicts)
    if outcome is not None and seconds is not None and run.heard.metrics:
        _count_run(run, outcome, seconds)
    try:
        if span.is_recording():
            _tell_of_run(span, run, outcome, error)
    except Exception as failure:  # noqa: BLE001 - no run fails because its span cannot be told
        broken("a span", failure)
    _end(span)


def _verdicts(run: Running, span: Span, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Count verdicts, and tell of them."""
    if run.heard.metrics:
        for verdict in verdicts:
            _metrics.verified(str(verdict["verifier"]), _evaluations.label(verdict))
    _evaluations.tell(span, verdicts, run.redactor.scrub, emits=run.heard.events)


def model_refused(run: Running, error: BaseException) -> None:
    """Count that a model call was refused, and what the run turned to instead."""
    if run.heard.metrics and _callfacts.is_first(error):
        _callfacts.count(run.workflow, None, error, "", fresh=True)


def _count_run(run: Running, outcome: str, seconds: float) -> None:
    usage = run.usage
    ended = outcome != "pending"
    usd = dollars(usage.spent) if ended and usage.cost_complete else None
    _metrics.run_ended(run.workflow, outcome, seconds if ended else None, usd)


def _tell_of_run(
    span: Span, run: Running, outcome: str | None, error: BaseException | None
) -> None:
    usage = run.usage
    facts: dict[str, Any] = {
        "agentguard.run.steps": usage.steps,
        "agentguard.run.model_calls": usage.model_calls,
        "agentguard.run.tool_calls": usage.tool_calls,
        "agentguard.run.cost_usd": float(dollars(usage.spent)),
        "agentguard.run.cost_complete": usage.cost_complete,
        **_callfacts.of_verdicts(run.verdicts),
    }
    facts |= {} if outcome is None else {"agentguard.run.outcome": outcome}
    facts |= {} if error is None else _callfacts.refused(error)
    if error is not None and outcome != "pending":
        facts["error.type"] = _callfacts.type_of(error)
        span.set_status(Status(StatusCode.ERROR, _callfacts.type_of(error)))
    span.set_attributes(facts)


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


# The call.


class ToolSpan:
    """The one span of a tool call: the runtime's own if it has one open, else ours."""

    __slots__ = ("_began", "_own", "_run", "_token", "_tool", "span")

    def __init__(self, run: Running, tool: Tool, ref: CallRef | None) -> None:
        self._run, self._tool, self._token = run, tool, None
        self.span: Span = trace.INVALID_SPAN
        self._own, self._began = False, 0.0
        if not run.around.traced:
            return
        if run.heard.metrics:
            self._began = time.perf_counter()
        current = trace.get_current_span()
        theirs = _theirs(current, tool.name, run.host)
        if theirs is not None:
            self.span = theirs
        elif run.heard.spans:
            self._own = True
            self.span = _started(f"execute_tool {tool.name}", _start_facts(run, tool, ref))
        if theirs is None and not self._own:
            return
        if self.span is not current:  # what the body calls hangs below it, or is left out with it
            self._token = otel_context.attach(trace.set_span_in_context(self.span))
        if not self._own:
            self._complete(ref)

    def _complete(self, ref: CallRef | None) -> None:
        """Add to a span of somebody else what it does not say itself."""
        try:
            known = _attributes(self.span)
            facts = _start_facts(self._run, self._tool, ref)
            self.span.set_attributes({n: v for n, v in facts.items() if n not in known})
        except Exception as error:  # noqa: BLE001 - no call fails because its span cannot be told
            broken("a span", error)

    def end(
        self, outcome: str, error: BaseException | None, call: Call | None = None, value: Any = None
    ) -> None:
        """Say how the call ended. Waiting for a person is not an error."""
        run, tool = self._run, self._tool
        if self._token is not None:
            otel_context.detach(self._token)
        if not run.around.traced:
            return
        if run.heard.metrics:
            _metrics.tool_ended(tool.name, outcome, tool.effect, time.perf_counter() - self._began)
        learned = None if call is None else call.told
        if run.heard.metrics and (learned is not None or error is not None):
            fresh = error is not None and _callfacts.is_first(error)
            _callfacts.count(run.workflow, learned, error, tool.name, fresh=fresh)
        if learned is not None and learned.verdicts:
            _verdicts(run, self.span, learned.verdicts)
        try:
            if self.span.is_recording():
                self._tell(outcome, error, call, value)
        except Exception as failure:  # noqa: BLE001 - no call fails because its span cannot be told
            broken("a span", failure)
        if self._own:
            _end(self.span)

    def late(self, verdicts: Sequence[Mapping[str, Any]]) -> None:
        """Tell verdicts on an answer that came after the span had ended."""
        if self._run.around.traced:
            _verdicts(self._run, self.span, verdicts)

    def _tell(
        self, outcome: str, error: BaseException | None, call: Call | None, value: Any
    ) -> None:
        facts = {"agentguard.tool.outcome": outcome}
        facts |= _callfacts.facts_of(call, error, self._run.hash_key)
        if call is not None and _evaluations.content()[0]:
            facts |= self._shown(call, value, returned=error is None)
        if error is not None and outcome in _callfacts.ERRORS:
            facts["error.type"] = _callfacts.type_of(error)
            self.span.set_status(Status(StatusCode.ERROR, _callfacts.type_of(error)))
        elif outcome == "pending" and not self._own:
            # Its owner sees an exception pass. Once a span is OK nothing makes it an error any more.
            self.span.set_status(Status(StatusCode.OK))
        self.span.set_attributes(facts)  # at once: every call of a span takes its lock

    def _shown(self, call: Call, value: Any, *, returned: bool) -> dict[str, str]:
        """Return the content; none where an object of the tool's cannot even be written as text."""
        try:
            return self._content(call, value, returned=returned)
        except Exception as error:  # noqa: BLE001 - the rest of the span is told all the same
            broken("the content of a span", error)
            return {}

    def _content(self, call: Call, value: Any, *, returned: bool) -> dict[str, str]:
        """Return arguments and result as JSON, without what is sensitive."""
        redact = self._run.redactor
        shown = redact.hide(call.tool.sensitive, call.plain)
        found = {"gen_ai.tool.call.arguments": plain_text(redact.scrub(shown))}
        if returned:
            try:
                plain = jsonable(value if call.retrieved is None else call.retrieved)
            except ContractViolation:
                plain = repr(value)
            found["gen_ai.tool.call.result"] = plain_text(redact.scrub({"": plain})[""])
        return found


def _theirs(current: Span, tool: str, host: Host) -> Span | None:
    """Return the span that an instrumentation has open for this very call, if one has."""
    try:
        named = _tool_of(current)
        if named == tool:
            return current
        found = host.tool_span(tool)
        if found is not None and _is_free(found):
            return found
        # Semantic Kernel names a tool plugin-function; without its adapter the end has to do.
        alike = host.name == Host.name and named.endswith(f"-{tool}")
        return current if alike else None
    except Exception as error:  # noqa: BLE001 - then the call has a span of its own
        broken("a span of the runtime", error)
        return None


def _is_free(span: Span) -> bool:
    """Return whether *span* can be told of, and is of no run or guarded call already."""
    return span.is_recording() and "agentguard.run.id" not in _attributes(span)


def _tool_of(span: Span) -> str:
    """Return the tool for whose call an instrumentation has opened *span*, and for it alone."""
    if not _is_free(span):
        return ""
    attributes = _attributes(span)
    is_call = attributes.get(OPERATION) == "execute_tool"
    return str(attributes.get(TOOL_NAME, "")) if is_call else ""


def _attributes(span: Span) -> Mapping[str, Any]:
    """Return what a span says so far; only those of the SDK can tell."""
    found: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    return found


def _start_facts(run: Running, tool: Tool, ref: CallRef | None) -> dict[str, Any]:
    """Return what is known at the start, which is what samplers see."""
    attributes: dict[str, Any] = {
        OPERATION: "execute_tool",
        TOOL_NAME: tool.name,
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": run.principal.agent,
        WORKFLOW: run.workflow,
        "openinference.span.kind": "TOOL",
        "agentguard.run.id": run.id,
        "agentguard.tool.effect": tool.effect,
    }
    if ref is not None:
        attributes["gen_ai.tool.call.id"] = ref.id
    if description := _description(tool.function):
        attributes["gen_ai.tool.description"] = description
    return attributes


def _description(function: Callable[..., Any]) -> str:
    """Return the first paragraph of a tool's docstring; one that cannot be hashed has none."""
    try:
        return _described(function)
    except TypeError:
        return ""


@functools.lru_cache(maxsize=1024)
def _described(function: Callable[..., Any]) -> str:
    if str(getattr(function, "__module__", "")).startswith(SCOPE):
        return ""  # an adapter's own wrapper says nothing of the tool
    text = inspect.getdoc(function) or ""
    return text.partition("\n\n")[0][:_LONGEST_DESCRIPTION]


def _started(name: str, attributes: dict[str, Any]) -> Span:
    try:
        return _TRACER.start_span(name, kind=SpanKind.INTERNAL, attributes=attributes)
    except Exception as error:  # noqa: BLE001 - a sampler or a processor has failed
        broken("a span", error)
        return _unrecorded()


def _unrecorded() -> Span:
    """Return a span that records nothing and leaves the trace of the caller as it is.

    A process without an SDK still passes on whose trace it serves.
    """
    return trace.NonRecordingSpan(trace.get_current_span().get_span_context())


def _end(span: Span) -> None:
    try:
        span.end()
    except Exception as failure:  # noqa: BLE001 - no call and no run fails because its span cannot end
        broken("a span", failure)
