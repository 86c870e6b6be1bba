"""What an application that has set OpenTelemetry up would see: spans, metrics and events in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from agentguard import Guard, Principal, _evaluations, _metrics, telemetry
from agentguard.testing import FakeClock


class Watched:
    """A guard, and everything that it tells."""

    def __init__(
        self, patch: pytest.MonkeyPatch, *, sampler: Sampler = ALWAYS_ON, **guard: Any
    ) -> None:
        # A process has one provider of a kind for good, so each test gives agentguard its own.
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.logs: Any = _made(InMemoryLogRecordExporter)
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.loggers = LoggerProvider(shutdown_on_exit=False)
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        patch.setattr(telemetry, "_TRACER", self.provider.get_tracer("agentguard"))
        patch.setattr(_metrics, "_METER", self.meters.get_meter("agentguard"))
        patch.setattr(_metrics, "_made", {})
        patch.setattr(_evaluations, "_LOGGER", self.loggers.get_logger("agentguard"))
        self.clock = FakeClock()
        who = Principal(agent="support")
        self.guard: Guard = Guard("memory://", **{"clock": self.clock, "principal": who, **guard})

    def call(self, function: Callable[..., Any], *args: Any, run: str = "r", **options: Any) -> Any:
        """Call *function* in a run, and return what it returns or raises."""
        try:
            with self.guard.run("w", run_id=run, **options):
                return function(*args)
        except Exception as error:  # noqa: BLE001 - what was told is looked at, not this
            return error

    def spans(self, kind: str = "execute_tool") -> list[ReadableSpan]:
        """Return the finished spans of one operation, in the order in which they ended."""
        found = self.exporter.get_finished_spans()
        return [s for s in found if facts(s).get("gen_ai.operation.name") == kind]

    def points(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Return a metric: values of its labels, sorted by label → sum, or count of a histogram."""
        return {
            tuple(str(value) for _, value in sorted(labels.items())): value
            for labels, value in self.measured(name)
        }

    def measured(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return labels and value of every point of a metric."""
        return [
            (dict(point.attributes), point.value if hasattr(point, "value") else point)
            for metric in self.metrics()
            if metric.name == name
            for point in metric.data.data_points
        ]

    def metrics(self) -> list[Any]:
        """Return all metrics that have points."""
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        return [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]

    def events(self) -> list[Any]:
        """Return the log records that were emitted."""
        return [found.log_record for found in self.logs.get_finished_logs()]

    def close(self) -> None:
        """Close the guard and end the providers."""
        self.guard.close()
        for provider in (self.provider, self.meters, self.loggers):
            provider.shutdown()


def _made(kind: Any) -> Any:
    """Make one of a class of the SDK that has no types."""
    return kind()


def facts(span: Any) -> dict[str, Any]:
    """Return a span's or an event's attributes."""
    return dict(span.attributes or {})
