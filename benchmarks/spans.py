"""The tracing that subjects with spans run under: SDK, batch processor, in-memory exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .laps import need

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracer, and the way to empty its exporter before a lap, so that memory stays flat."""

    tracer: Tracer
    forget: Callable[[], None]


@contextmanager
def batching_tracer() -> Iterator[Tracing]:
    """Set the process's tracer provider, as an application does."""
    need("opentelemetry-sdk", "opentelemetry.sdk.trace")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield Tracing(trace.get_tracer("benchmarks"), exporter.clear)
    provider.shutdown()
