"""A guard that is watched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.telemetry.watched import Watched

SWITCHES = (
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
    "AGENTGUARD_OTEL_SPAN_EVENTS",
)


@pytest.fixture(name="seen")
def watched_guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A guard whose spans, metrics and events are kept."""
    for switch in SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    seen = Watched(monkeypatch)
    yield seen
    seen.close()
