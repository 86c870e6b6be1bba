"""Sends telemetry to a collector, for processes in which nobody has set OpenTelemetry up.

Nothing is set or loaded until `set_up` is called, and what was set up before is never replaced.
Spans and events wait in bounded queues that threads of their own empty: a collector that is dead,
slow or refuses costs data, never a call.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

Protocol = Literal["http/protobuf", "grpc"]
Signal = Literal["traces", "metrics", "logs"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")
_TIMEOUT = 5.0
"""Seconds for one export with all its retries, if nothing else is said."""
_AT_EXIT = 2.0
"""Seconds that the end of a process may wait for a collector."""


def set_up(
    service_name: str, *, endpoint: str | None = None, headers: Mapping[str, str] | None = None,
    protocol: Protocol | None = None, timeout: float | None = None,
    resource: Mapping[str, str] | None = None, signals: Collection[Signal] = SIGNALS,
    exporters: Mapping[Signal, Any] | None = None,
) -> Telemetry:  # fmt: skip
    """Send spans, metrics and events to a collector by OTLP, in batches, from now on.

    What is not given is taken from the variables OTEL_EXPORTER_OTLP_*, of one signal or of all.

    Args:
        service_name: how the process is called in the collector.
        endpoint: where it listens, such as `http://localhost:4318`, without the signal's path.
        headers: sent with everything, such as an API key.
        protocol: `http/protobuf` or `grpc`; gRPC needs a package that the extra `otel` lacks.
        timeout: seconds for one export, its retries included.
        resource: more attributes of the process.
        signals: `traces`, `metrics`, `logs`; Phoenix takes traces alone.
        exporters: signal → an exporter of the SDK that gets it instead of the collector.

    Raises:
        ConfigurationError: a provider is set already, a package is missing, or what is given, or a
            variable says, would send nothing.
    """
    wanted = _wanted(signals)
    makers = _given(exporters or {}, wanted)
    others: list[Signal] = [signal for signal in wanted if signal not in makers]
    makers |= _exporters(others, protocol, _base(endpoint), headers, _seconds(timeout))
    _refuse_to_replace(wanted)
    made = _Made(service_name, resource, wanted, makers)
    telemetry = Telemetry(made.providers)
    for set_it in made.setters:
        set_it()
    return telemetry


class Telemetry:
    """What `set_up` has set up; leave its block, or call `shutdown`, to send what still waits.

    Attributes:
        providers: signal → the provider of the SDK that is set for it.
    """

    def __init__(self, providers: Mapping[str, Any]) -> None:
        self.providers = dict(providers)
        self._go, self._lock, self._pid = threading.Event(), threading.Lock(), os.getpid()
        self._over: bool | None = None
        # They are started now: while a process ends, Python starts no threads any more.
        self._closing = [self._thread(provider) for provider in self.providers.values()]
        atexit.register(self.shutdown, _AT_EXIT)

    def _thread(self, provider: Any) -> threading.Thread:
        def close() -> None:
            self._go.wait()
            provider.shutdown()

        thread = threading.Thread(target=close, name="agentguard telemetry", daemon=True)
        thread.start()
        return thread

    def flush(self, timeout: float = _TIMEOUT) -> bool:
        """Send what waits now; return whether that was over within *timeout* seconds.

        What the collector refused is lost, and told in the log of its exporter.
        """
        ends: list[bool] = []

        def flush(provider: Any) -> None:
            ends.append(bool(provider.force_flush(int(timeout * 1000))))

        threads = [
            threading.Thread(target=flush, args=(provider,), daemon=True)
            for provider in self.providers.values()
        ]
        for thread in threads:
            thread.start()
        return _ended(threads, timeout) and all(ends)

    def shutdown(self, timeout: float = _AT_EXIT) -> bool:
        """Send what waits and end; return within *timeout* seconds, whatever the collector does.

        Returns:
            Whether the providers have ended. What was not sent by then is lost.
        """
        with self._lock:
            if self._over is None:
                atexit.unregister(self.shutdown)
                if os.getpid() != self._pid:  # a fork has none of its parent's threads
                    self._closing = [self._thread(provider) for provider in self.providers.values()]
                self._go.set()
                self._over = _ended(self._closing, timeout)
            return self._over

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.shutdown()


class _Made:
    """The providers of the SDK, and what makes them the ones of this process."""

    def __init__(
        self, service: str, resource: Mapping[str, str] | None, signals: Collection[Signal],
        exporters: Mapping[Signal, Callable[[], Any]],
    ) -> None:  # fmt: skip
        from opentelemetry.sdk.resources import Resource

        self.resource = Resource.create({"service.name": service, **(resource or {})})
        self.providers: dict[str, Any] = {}
        self.setters: list[Callable[[], None]] = []
        makers = {"traces": self._traces, "metrics": self._metrics, "logs": self._logs}
        for signal in signals:
            makers[signal](exporters[signal]())

    def _traces(self, exporter: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        _drop_quietly()
        provider = TracerProvider(resource=self.resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self.providers["traces"] = provider
        self.setters.append(lambda: trace.set_tracer_provider(provider))

    def _metrics(self, exporter: Any) -> None:
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        reader = PeriodicExportingMetricReader(exporter)
        provider = MeterProvider([reader], resource=self.resource, shutdown_on_exit=False)
        self.providers["metrics"] = provider
        self.setters.append(lambda: metrics.set_meter_provider(provider))

    def _logs(self, exporter: Any) -> None:
        from opentelemetry import _logs
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        _drop_quietly()
        provider = LoggerProvider(resource=self.resource, shutdown_on_exit=False)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        self.providers["logs"] = provider
        self.setters.append(lambda: _logs.set_logger_provider(provider))


def _drop_quietly() -> None:
    """Let a full queue drop what has no room without a warning for each, in the call's own time.

    The exporters still tell, in threads of their own, that the collector does not take anything.
    """
    logger = logging.getLogger("opentelemetry.sdk._shared_internal")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)


def _wanted(signals: Collection[Signal]) -> list[Signal]:
    chosen = [signals] if isinstance(signals, str) else list(signals)
    for signal in chosen:
        if signal not in SIGNALS:
            raise ConfigurationError(
                f"set_up: there is no signal {signal!r}; there are {', '.join(SIGNALS)}"
            )
    return [signal for signal in SIGNALS if signal in chosen]


def _given(
    exporters: Mapping[Signal, Any], wanted: Collection[Signal]
) -> dict[Signal, Callable[[], Any]]:
    """Return what hands over exporters that are made already."""
    for signal in exporters:
        if signal not in wanted:
            raise ConfigurationError(
                f"set_up: exporters has {signal!r}, signals has {', '.join(wanted) or 'none'}: say"
                " the same in both"
            )
    return {signal: partial(_as_it_is, exporter) for signal, exporter in exporters.items()}


def _as_it_is(exporter: Any) -> Any:
    return exporter


def _variable(signal: Signal, what: str) -> tuple[str, str]:
    """Return which of OpenTelemetry's variables speaks for *signal*, and what it says, if one does."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"):
        if said := os.environ.get(name, "").strip():
            return name, said
    return "", ""


def _protocol(given: str | None, signal: Signal) -> str:
    name, said = ("protocol", given) if given else _variable(signal, "PROTOCOL")
    if said and said not in PROTOCOLS:
        raise ConfigurationError(
            f"set_up: there is no protocol {said!r}, as {name} says; there are"
            f" {', '.join(PROTOCOLS)}"
        )
    return said or "http/protobuf"


def _base(endpoint: str | None, name: str = "endpoint") -> str | None:
    if endpoint is None:
        return None
    base = endpoint.rstrip("/")
    if base.endswith(tuple(f"/v1/{signal}" for signal in SIGNALS)) or not _is_address(base):
        raise ConfigurationError(
            f"set_up: {name}={endpoint!r} must be where the collector listens, such as"
            " http://localhost:4318, without /v1/traces"
        )
    return base


def _is_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _endpoint(base: str | None, signal: Signal, protocol: str) -> str | None:
    """Return where *signal* goes; None where a variable says it, and says what can be used."""
    if protocol != "http/protobuf":
        return base
    if base is not None:
        return f"{base}/v1/{signal}"
    name, said = _variable(signal, "ENDPOINT")
    if name == "OTEL_EXPORTER_OTLP_ENDPOINT":
        _base(said, name)
    elif said and not _is_address(said):  # that of one signal is used as it is
        raise ConfigurationError(
            f"set_up: {name}={said!r} must be a whole address, such as"
            f" http://localhost:4318/v1/{signal}"
        )
    return None


def _seconds(timeout: float | None) -> float | None:
    if timeout is not None and (isinstance(timeout, bool) or not timeout > 0):
        raise ConfigurationError(f"set_up: timeout={timeout!r} is not a number of seconds over 0")
    return timeout


def _exporters(
    signals: Collection[Signal], protocol: str | None, base: str | None,
    headers: Mapping[str, str] | None, timeout: float | None,
) -> dict[Signal, Callable[[], Any]]:  # fmt: skip
    """Return what makes the exporter of each signal."""

    def maker(signal: Signal) -> Callable[[], Any]:
        how = _protocol(protocol, signal)
        options: dict[str, Any] = {"headers": None if headers is None else dict(headers)}
        if timeout is not None or not _variable(signal, "TIMEOUT")[1]:
            options["timeout"] = _TIMEOUT if timeout is None else timeout
        return partial(_classes(how)[signal], endpoint=_endpoint(base, signal, how), **options)

    return {signal: maker(signal) for signal in signals}


def _classes(protocol: str) -> dict[Signal, Any]:
    name = "http" if protocol == "http/protobuf" else "grpc"
    from importlib import import_module

    package = f"opentelemetry.exporter.otlp.proto.{name}"
    try:
        return {
            "traces": import_module(f"{package}.trace_exporter").OTLPSpanExporter,
            "metrics": import_module(f"{package}.metric_exporter").OTLPMetricExporter,
            "logs": import_module(f"{package}._log_exporter").OTLPLogExporter,
        }
    except ModuleNotFoundError as missing:
        extra = 'pip install "agentguard[otel]"'
        own = "pip install opentelemetry-exporter-otlp-proto-grpc"
        raise ConfigurationError(
            f"set_up: {missing.name} is not installed: {extra if name == 'http' else own}"
        ) from missing


def _refuse_to_replace(signals: Collection[Signal]) -> None:
    from opentelemetry import _logs, metrics, trace

    known: dict[Signal, Callable[[], Any]] = {
        "traces": trace.get_tracer_provider, "metrics": metrics.get_meter_provider,
        "logs": _logs.get_logger_provider,
    }  # fmt: skip
    for signal in signals:
        kind = type(known[signal]())
        if "Proxy" not in kind.__name__:  # the API's own, which stands for nobody
            raise ConfigurationError(
                f"set_up: this process has a {kind.__name__} already, and agentguard uses what is"
                " set: leave set_up out"
            )


def _ended(threads: Collection[threading.Thread], timeout: float) -> bool:
    """Wait for *threads* together, no longer than *timeout* seconds."""
    until = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
