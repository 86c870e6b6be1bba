"""Rotel: an OpenTelemetry collector that others have written, started as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SIGNALS = ("traces", "metrics", "logs")


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector; `grpc` and `http` are where it takes OTLP."""

    grpc: str
    http: str

    def at(self, protocol: str) -> str:
        """Return where it takes *protocol*, `grpc` or `http/protobuf`."""
        return self.grpc if protocol == "grpc" else self.http


@contextmanager
def collector(backend: str, folder: Path) -> Iterator[Collector]:
    """Run one that takes all signals over both protocols and hands them on to *backend*.

    Args:
        backend: where OTLP over HTTP is taken.
        folder: for its own files.
    """
    grpc, http = free_ports(2)
    environment = {
        "ROTEL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
        "ROTEL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
        "ROTEL_EXPORTERS": "x:otlp",
        "ROTEL_EXPORTER_X_PROTOCOL": "http",
        "ROTEL_BATCH_TIMEOUT": "50ms",
        "ROTEL_PID_FILE": str(folder / "rotel.pid"),
    }
    for signal in SIGNALS:
        environment[f"ROTEL_EXPORTERS_{signal.upper()}"] = "x"
        environment[f"ROTEL_EXPORTER_X_{signal.upper()}_ENDPOINT"] = f"{backend}/v1/{signal}"
    words = [str(program()), "start"]
    with subprocess.Popen(
        words, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        assert b"Starting Rotel" in process.stdout.readline()
        try:
            yield Collector(f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}")
        finally:
            process.terminate()


def program() -> Path:
    """Find the collector that the package has brought."""
    spec = find_spec("rotel")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "rotel-agent"


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
