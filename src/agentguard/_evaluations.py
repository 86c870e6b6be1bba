"""Verdicts as `gen_ai.evaluation.result` events, through the logs API; and what events may show."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ._scope import SCOPE, VERSION, broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry._logs import Logger
    from opentelemetry.trace import Span

EVENT = "gen_ai.evaluation.result"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_MIRROR = "AGENTGUARD_OTEL_SPAN_EVENTS"
_CONTENT = {
    "": (False, False), "NO_CONTENT": (False, False), "SPAN_ONLY": (True, False),
    "EVENT_ONLY": (False, True), "SPAN_AND_EVENT": (True, True),
}  # fmt: skip

_BY_NAME = "OTEL_PYTHON_LOGGER_PROVIDER"
_LOGGER: Logger | None = None


def heard() -> bool:
    """Return whether anybody listens: whether a LoggerProvider is set."""
    if _LOGGER is not None:
        return True
    if "opentelemetry._logs" not in sys.modules and _BY_NAME not in os.environ:
        return False  # nobody has set one; to find that out need not load it
    from opentelemetry._logs import get_logger_provider

    return "Proxy" not in type(get_logger_provider()).__name__  # the API's own, which has no name


def tell(
    span: Span, verdicts: Iterable[Mapping[str, Any]], scrub: Callable[[Any], Any], *, emits: bool
) -> None:
    """Tell of verdicts, one event each, below the span of what was evaluated.

    Args:
        span: what was evaluated; it may not record, or have ended.
        verdicts: as the record keeps them.
        scrub: takes what is sensitive out of their reasons.
        emits: whether anybody listens to events; those on the span have a switch of their own.
    """
    mirrors = os.environ.get(_MIRROR, "").strip().lower() == "true" and span.is_recording()
    if not emits and not mirrors:
        return
    for verdict in verdicts:
        try:
            facts = _facts(verdict, scrub)
            if emits:
                _emit(span, facts)
            if mirrors:
                span.add_event(EVENT, facts)
        except Exception as error:  # noqa: BLE001 - no call fails because nobody takes its events
            broken(EVENT, error)


def label(verdict: Mapping[str, Any]) -> str:
    """Return a verdict in one word: `pass`, `fail` or `unavailable`."""
    if verdict["unavailable"]:
        return "unavailable"
    return "pass" if verdict["passed"] else "fail"


def content() -> tuple[bool, bool]:
    """Return whether the standard switch allows content on spans, and whether in events."""
    given = os.environ.get(_CAPTURE, "")
    return _CONTENT.get(given.strip().upper()) or _unknown(given)


@functools.cache
def _unknown(given: str) -> tuple[bool, bool]:
    """Say once that a value of the switch means nothing."""
    logging.getLogger(SCOPE).warning(
        "%s=%r is none of NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT: no content is captured",
        _CAPTURE, given,
    )  # fmt: skip
    return False, False


def _facts(verdict: Mapping[str, Any], scrub: Callable[[Any], Any]) -> dict[str, Any]:
    said = label(verdict)
    facts: dict[str, Any] = {
        "gen_ai.evaluation.name": verdict["verifier"], "gen_ai.evaluation.score.label": said,
        "agentguard.verifier.kind": verdict.get("kind", "rule"),  # a model, a person?
    }  # fmt: skip
    if said == "unavailable":
        facts["error.type"] = "verifier_unavailable"
    else:
        facts["gen_ai.evaluation.score.value"] = _score(verdict, said)
    if content()[1] and verdict.get("reason"):
        facts["gen_ai.evaluation.explanation"] = scrub(verdict["reason"])
    return facts


def _score(verdict: Mapping[str, Any], said: str) -> float:
    """Return how sure a verifier was; one that said so in no number from 0 to 1 has said no."""
    try:
        sure = float(verdict.get("confidence", ""))
    except (TypeError, ValueError):
        return float(said == "pass")
    return sure if 0 <= sure <= 1 else float(said == "pass")


def _emit(span: Span, facts: dict[str, Any]) -> None:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.trace import set_span_in_context

    record = LogRecord(
        timestamp=time.time_ns(), event_name=EVENT, context=set_span_in_context(span),
        severity_number=SeverityNumber.INFO, attributes=facts,
    )  # fmt: skip
    (_LOGGER or _logger()).emit(record)


@functools.cache
def _logger() -> Logger:
    from opentelemetry._logs import get_logger  # who verifies nothing does not load it

    return get_logger(SCOPE, VERSION)
