"""What a child process shows: every span that it made, case by case, as JSON.

Instrumenting is for a whole process and for good, so each child has its own. A child is one program
for one framework: `python -m tests.beside.langgraph_child NAME,NAME`. The names are those of
`INSTRUMENTORS`; `sampled out` lets nothing be recorded, `before` is how it was when runtimes could
not name a span.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from agentguard.hosting import Host

INSTRUMENTORS = {
    "openinference langchain": ("openinference.instrumentation.langchain", "LangChainInstrumentor"),
    "openllmetry langchain": ("opentelemetry.instrumentation.langchain", "LangchainInstrumentor"),
    "genai langchain": ("opentelemetry.instrumentation.genai.langchain", "LangChainInstrumentor"),
    "openinference llama-index": (
        "openinference.instrumentation.llama_index",
        "LlamaIndexInstrumentor",
    ),
    "genai llama-index": (
        "opentelemetry.instrumentation.genai.llama_index",
        "LlamaIndexInstrumentor",
    ),
}
SAMPLED_OUT = "sampled out"
BEFORE = "before"


OPERATION, OUTCOME = "gen_ai.operation.name", "agentguard.tool.outcome"
ALL_OF_THEM = tuple(module for module, _ in INSTRUMENTORS.values())


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it was exported."""

    name: str
    scope: str
    id: str
    parent: str | None
    links: list[str]
    status: str
    attributes: dict[str, str]

    @property
    def is_tool(self) -> bool:
        """Whether some backend shows it as the execution of a tool."""
        kind = self.attributes.get("openinference.span.kind", "")
        return self.attributes.get(OPERATION) == "execute_tool" or kind.upper() == "TOOL"


class Recorder:
    """The provider of this process, and what it has exported, case by case."""

    def __init__(self, names: list[str]) -> None:
        self.exporter = InMemorySpanExporter()
        self.cases: dict[str, list[Span]] = {}
        sampler = ParentBased(ALWAYS_OFF) if SAMPLED_OUT in names else None
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        trace.set_tracer_provider(self.provider)
        for name in names:
            if name in INSTRUMENTORS:
                module, kind = INSTRUMENTORS[name]
                getattr(importlib.import_module(module), kind)().instrument()

    @contextmanager
    def case(self, name: str) -> Generator[None]:
        """Keep the spans that are made in this block as *name*."""
        self.exporter.clear()
        yield
        self.cases[name] = [_told(span) for span in self.exporter.get_finished_spans()]


def recording(*hosts: type[Host]) -> Recorder:
    """Begin as the command line says; *hosts* name no spans if it says `before`."""
    names = sys.argv[1].split(",")
    if BEFORE in names:
        for host in hosts:
            host.tool_span = Host.tool_span  # type: ignore[method-assign]
    return Recorder(names)


def show(recorder: Recorder) -> None:
    """Print what was recorded, for the test that started this process."""
    cases = {name: [asdict(span) for span in spans] for name, spans in recorder.cases.items()}
    imported = [module for module in ALL_OF_THEM if module in sys.modules]
    print(json.dumps({"cases": cases, "imported": imported}))  # noqa: T201 - for this it was started


def work(effect: str) -> str:
    """Do what a tool does, with a span of its own."""
    with trace.get_tracer("the tool's body").start_as_current_span("body"):
        return f"done {effect}"


def _told(span: ReadableSpan) -> Span:
    scope, context = span.instrumentation_scope, span.get_span_context()
    assert context is not None
    return Span(
        name=span.name,
        scope=scope.name if scope else "",
        id=f"{context.span_id:x}",
        parent=f"{span.parent.span_id:x}" if span.parent else None,
        links=[f"{link.context.span_id:x}" for link in span.links],
        status=span.status.status_code.name,
        attributes=_plain(span.attributes or {}),
    )


def _plain(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value)[:200] for name, value in attributes.items()}
