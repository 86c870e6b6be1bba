"""Verdicts as annotations of spans in Arize Phoenix, which takes traces by OTLP but no logs.

An exporter of OpenTelemetry's logs, for a `BatchLogRecordProcessor`: calls never wait for it. It
needs the extra `otel` and speaks HTTP by the standard library.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from ._scope import broken
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord

EVENT = "gen_ai.evaluation.result"
IDENTIFIER = "agentguard"
"""Marks what comes from here; of one verifier's verdicts on one span, the last one stays."""
_KINDS = {"rule": "CODE", "model": "LLM", "person": "HUMAN"}
_RESERVED = "note"  # Phoenix refuses a whole batch for an annotation of this name
_BUSY = frozenset({429, 500, 502, 503, 504})
_REDIRECTED, _NOT_FOUND = 300, 404
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0
_LONGEST_ANSWER = 100_000

Annotation = dict[str, Any]


class AnnotationExporter(LogRecordExporter):
    """Turns each `gen_ai.evaluation.result` into an annotation of the span that was judged.

    A verdict may come before its span: it is tried again until *patience* ends. A Phoenix that
    cannot be reached, or refuses, is not waited for; what it should have had is left out with one
    warning, and stands in the run record as ever.
    """

    def __init__(
        self, endpoint: str = "http://127.0.0.1:6006", *, headers: Mapping[str, str] | None = None,
        timeout: float = 5.0, patience: float = 15.0,
    ) -> None:  # fmt: skip
        """Make one.

        Args:
            endpoint: where Phoenix is, without a path below its own.
            headers: for each request, such as `{"Authorization": "Bearer …"}`.
            timeout: seconds for one request.
            patience: seconds for which verdicts wait for their spans.

        Raises:
            ConfigurationError: *endpoint* is no address, or a number is not above zero.
        """
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigurationError(
                f"AnnotationExporter: {endpoint!r} is no address, say for instance"
                " 'http://127.0.0.1:6006'"
            )
        if timeout <= 0 or patience <= 0:
            raise ConfigurationError(
                "AnnotationExporter: timeout and patience are in seconds and above zero"
            )
        self._url = f"{endpoint.rstrip('/')}/v1/span_annotations?sync=true"
        self._headers = {**(headers or {}), "Content-Type": "application/json"}
        self._timeout, self._patience = timeout, patience
        self._stopped = threading.Event()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Send the verdicts among *batch*; wait for spans that are still on their way."""
        waiting = [found for record in batch if (found := _annotation(record))]
        ends, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while waiting:
            try:
                early = self._send(waiting)
            except (OSError, http.client.HTTPException, _RefusedError) as error:
                return _lost(error)
            if len(early) < len(waiting):
                waiting = early
                continue
            if time.monotonic() + pause > ends or self._stopped.wait(pause):
                return _lost(_RefusedError(f"{len(waiting)} spans did not arrive in time"))
            pause = min(pause * 2, _LONGEST_PAUSE)
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Wait for nothing any more."""
        self._stopped.set()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's name
        """Return True: nothing is kept here between two exports."""
        return True

    def _send(self, annotations: list[Annotation]) -> list[Annotation]:
        """Send annotations; return those that have to be sent again.

        Phoenix takes all of a request or none, and says which spans it does not know.
        """
        status, said = self._post({"data": annotations})
        if status < _REDIRECTED:
            return []
        if status in _BUSY:
            return annotations
        early = [each for each in annotations if each["span_id"] in said]
        if status != _NOT_FOUND or not early:
            raise _RefusedError(f"HTTP {status} from {self._url.partition('?')[0]}")
        known = [each for each in annotations if each not in early]
        return early + (self._send(known) if known else [])

    def _post(self, body: Any) -> tuple[int, str]:
        request = urllib.request.Request(  # noqa: S310 - http or https, as checked
            self._url, json.dumps(body).encode(), self._headers, method="POST"
        )
        try:
            with _OPENER.open(request, timeout=self._timeout) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read(_LONGEST_ANSWER).decode(errors="replace")


class _RefusedError(Exception):
    """Phoenix was there and did not take it."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the headers may hold a key."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> None:
        """Follow no redirection."""


_OPENER = urllib.request.build_opener(_StayHere)


def _lost(error: Exception) -> LogRecordExportResult:
    broken("the export of verdicts to Phoenix", error)
    return LogRecordExportResult.FAILURE


def _annotation(record: ReadableLogRecord) -> Annotation | None:
    """Return what Phoenix is told of a verdict; None of anything else, and where no span is kept."""
    log = record.log_record
    said: Mapping[str, Any] = log.attributes or {}
    if log.event_name != EVENT or not log.span_id or not (log.trace_flags or 0) & 1:
        return None
    name = str(said.get("gen_ai.evaluation.name") or "verifier")
    result = {
        "label": said.get("gen_ai.evaluation.score.label"),
        "score": said.get("gen_ai.evaluation.score.value"),
        "explanation": said.get("gen_ai.evaluation.explanation"),
    }
    if not any(value is not None for value in result.values()):
        return None
    return {
        "span_id": f"{log.span_id:016x}",
        "name": f"{name} (verifier)" if name == _RESERVED else name,
        "annotator_kind": _KINDS.get(str(said.get("agentguard.verifier.kind")), "CODE"),
        "result": {key: value for key, value in result.items() if value is not None},
        "metadata": {key: value for key, value in said.items() if key.startswith("agentguard.")},
        "identifier": IDENTIFIER,
    }
