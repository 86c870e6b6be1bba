"""Where a worker's telemetry goes: to an OpenTelemetry collector, to Arize Phoenix, or nowhere."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agentguard.otel import Telemetry


def watched(
    runtime: str, *, otlp: str = "", phoenix: str = ""
) -> AbstractContextManager[Telemetry | None]:
    """Send telemetry for as long as the block lasts.

    Args:
        runtime: by which the backend tells the workers apart.
        otlp: where a collector takes OTLP over HTTP; it gets traces, metrics and events.
        phoenix: where Phoenix is; it gets traces, and verdicts as annotations.
    """
    if not (otlp or phoenix):
        return nullcontext()
    from agentguard.otel import set_up

    name = project_of(runtime)
    if otlp:
        return set_up(name, endpoint=otlp)
    from agentguard.phoenix import AnnotationExporter

    return set_up(
        name,
        endpoint=phoenix,
        signals=["traces", "logs"],
        exporters={"logs": AnnotationExporter(phoenix)},
        resource={"openinference.project.name": name},
    )


def project_of(runtime: str) -> str:
    """Return the name by which a backend tells the runtimes apart."""
    return f"each_runtime.{runtime}"
