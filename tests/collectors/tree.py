"""Spans as trees that people read: what is special to a call, without ids and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tests.collectors.sink import Span

WIDTH = 46
"""Columns of the names."""


def parts(spans: Iterable[Span], run_id: str) -> list[Span]:
    """Return the spans of a run's parts, the first part first."""
    found = [
        span
        for span in spans
        if span.attributes.get("agentguard.run.id") == run_id
        and span.attributes.get("gen_ai.operation.name") == "invoke_workflow"
    ]
    return sorted(found, key=lambda span: int(span.attributes["agentguard.run.part"]))


def calls(spans: Iterable[Span], part: Span) -> list[Span]:
    """Return the tool spans in the trace of *part*, in order."""
    return [
        span
        for span in sorted(spans, key=lambda span: span.began)
        if span.trace_id == part.trace_id
        and span.attributes.get("gen_ai.operation.name") == "execute_tool"
    ]


def drawn(spans: Sequence[Span], root: Span, depth: str = "") -> Iterator[str]:
    """Draw a span and all that hangs below it, one a line."""
    below = sorted((s for s in spans if s.parent_id == root.span_id), key=lambda span: span.began)
    if not depth:
        yield line(root.name, root)
    for each in below:
        last = each is below[-1]
        yield line(f"{depth}{'└─' if last else '├─'} {each.name}", each)
        yield from drawn(spans, each, f"{depth}{'   ' if last else '│  '}")


def line(name: str, span: Span) -> str:
    """Say what is to be seen of a span."""
    return f"{name.ljust(WIDTH)} {'  '.join(facts(span))}".rstrip()


def facts(span: Span) -> Iterator[str]:
    """Yield what is told of a span: its kind, how it ended, and why."""
    said = span.attributes
    yield str(said.get("openinference.span.kind", "-")).ljust(6)
    yield str(said.get("agentguard.run.outcome") or said.get("agentguard.tool.outcome") or "-")
    for name, label in TOLD:
        if name in said:
            yield f"{label} {said[name]}"


TOLD = (
    ("agentguard.run.part", "part"),
    ("agentguard.policy.rule", "rule"),
    ("agentguard.approval.status", "approval"),
    ("agentguard.idempotency.replayed", "replayed"),
    ("error.type", "error"),
)
