"""What a guarded call costs beside a collector that is well, dead, silent or refusing.

Every round starts one process for each kind, in turn, and times each single call; the ratios are
those of one round, so that what else the machine does falls on all of them alike.

    python -m benchmarks.collectors [--rounds N] [--calls N] [--protocol grpc]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = ("no provider", "healthy", "dead", "silent", "refusing")
SUBJECTS = ("read", "write")
_WARM = {"read": 2500, "write": 200}
"""So many calls come first: more than the queue of the SDK holds, so that it is full, or is emptied."""
_WRITES = 4
"""A write takes as long as so many reads and more."""
_SLOWLY = 0.2
"""Seconds that the refusing collector takes for its 503."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collectors")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--protocol", default="http/protobuf")
    parser.add_argument("--serve", choices=["healthy", "silent", "refusing"])
    parser.add_argument("--agent", default=None)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    elif given.agent is not None:
        print(json.dumps(timed(**json.loads(given.agent))))
    else:
        report(given.rounds, given.calls, given.protocol)


def report(rounds: int, calls: int, protocol: str) -> None:
    """Run *rounds* and print medians of the p50 and of its ratio to the healthy collector's."""
    servers = {kind: _server(kind) for kind in ("healthy", "silent", "refusing")}
    found: dict[str, dict[str, list[float]]] = {s: {k: [] for k in KINDS} for s in SUBJECTS}
    try:
        for number in range(rounds):
            turn = number % len(KINDS)
            for kind in (*KINDS[turn:], *KINDS[:turn]):
                endpoint = _endpoint(kind, servers)
                for subject, p50 in _agent(endpoint, calls, protocol).items():
                    found[subject][kind].append(p50)
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()
    for subject in SUBJECTS:
        print(f"guarded {subject} ({protocol}, {rounds} rounds of {calls} calls)")
        for kind in KINDS:
            pairs = zip(found[subject][kind], found[subject]["healthy"], strict=True)
            ratio = statistics.median(one / healthy for one, healthy in pairs)
            p50 = statistics.median(found[subject][kind])
            print(f"  {kind:12} p50 {p50:8.1f} µs   {ratio:5.2f} of healthy")


def _endpoint(kind: str, servers: dict[str, tuple[Any, str]]) -> str | None:
    if kind == "no provider":
        return None
    return servers[kind][1] if kind in servers else f"http://127.0.0.1:{_free_port()}"


def _free_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


def _server(kind: str) -> tuple[subprocess.Popen[str], str]:
    """Start a collector in a process of its own, so that it takes none of the agent's time."""
    command = [sys.executable, "-m", "benchmarks.collectors", "--serve", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def _agent(endpoint: str | None, calls: int, protocol: str) -> dict[str, float]:
    options = json.dumps({"endpoint": endpoint, "calls": calls, "protocol": protocol})
    command = [sys.executable, "-m", "benchmarks.collectors", "--agent", options]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found: dict[str, float] = json.loads(told.stdout)
    return found


def timed(endpoint: str | None, calls: int, protocol: Any) -> dict[str, float]:
    """Return the p50 of each subject in microseconds; the SDK is set up if there is an endpoint."""
    from agentguard import Guard, idempotent, tool_contract
    from agentguard.otel import set_up

    telemetry = None
    if endpoint is not None:
        telemetry = set_up("benchmark", endpoint=endpoint, protocol=protocol)

    @tool_contract(effect="read")
    def look(number: int) -> int:
        return number

    @tool_contract(effect="write")
    @idempotent(per="call")
    def write(number: int) -> int:
        return number

    guard, found = Guard("memory://"), dict[str, float]()
    with guard.run("benchmark", loops="off"):
        for name, tool in zip(SUBJECTS, (look, write), strict=True):
            found[name] = _p50(tool, _WARM[name], calls if name == "read" else calls // _WRITES)
    if telemetry is not None:
        telemetry.shutdown(0.1)
    return found


def _p50(tool: Any, warm: int, calls: int) -> float:
    took = []
    for number in range(warm + calls):
        began = time.perf_counter_ns()
        tool(number)
        took.append(time.perf_counter_ns() - began)
    return statistics.median(took[warm:]) / 1000


def serve(kind: str) -> None:
    """Say where it listens, and be a collector of this kind until killed."""
    if kind == "silent":
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
            threading.Event().wait()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if kind == "refusing":
                time.sleep(_SLOWLY)
            self.send_response(200 if kind == "healthy" else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
