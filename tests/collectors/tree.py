"""Spans as trees that people read: what is special to a call, without ids and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

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


def drawn(
    spans: Sequence[Span], root: Span, verdicts: Mapping[str, Sequence[str]], depth: str = ""
) -> Iterator[str]:
    """Draw a span and all that hangs below it, one a line.

    Args:
        spans: among which those below it are found.
        root: the span.
        verdicts: span id → what verifiers said of it.
        depth: what is drawn before the lines of its children.
    """
    below = sorted((s for s in spans if s.parent_id == root.span_id), key=lambda span: span.began)
    if not depth:
        yield line(root.name, root)
    for each in below:
        last = each is below[-1]
        yield line(f"{depth}{'└─' if last else '├─'} {each.name}", each)
        inside = f"{depth}{'   ' if last else '│  '}"
        yield from (f"{inside}   verdict of {said}" for said in verdicts.get(each.span_id, ()))
        yield from drawn(spans, each, verdicts, inside)


def line(name: str, span: Span) -> str:
    """Say what is to be seen of a span."""
    return f"{name.ljust(WIDTH)} {'  '.join(facts(span))}".rstrip()


def facts(span: Span) -> Iterator[str]:
    """Yield what is told of a span: its kind, how it ended, and why."""
    said = span.attributes
    yield str(said.get("openinference.span.kind", "UNKNOWN")).ljust(7)
    yield str(said.get("agentguard.run.outcome") or said.get("agentguard.tool.outcome") or "-")
    if said.get("agentguard.run.part"):
        yield f"part {said['agentguard.run.part']}"
    if said.get("agentguard.approval.status"):
        yield f"{said['agentguard.approval.status']}, because {said['agentguard.policy.rule']}"
    if said.get("agentguard.idempotency.replayed"):
        yield "answered from the record"
    if said.get("error.type"):
        yield f"error {said['error.type']}"
