"""A worker: takes jobs from standard input, one a line, and hands each to a runtime's agent.

`python -m examples.each_runtime.worker RUNTIME DIRECTORY --store URL [--otlp URL] [--phoenix URL]`.
A job is a run and a ticket, such as `r-1001 T-1001`; it is answered with one line of JSON. What a
worker that died had begun, the next one goes on with.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentguard import Guard, GuardError

from .desk import guard_of
from .watched import watched


def work(runtime: Any, guard: Guard, directory: Path, run_id: str, ticket_id: str) -> Any:
    """Work on a ticket as far as it goes."""
    try:
        waits: Any = runtime.handle(f"Handle ticket {ticket_id}", guard, run_id, directory / run_id)
        waits = asyncio.run(waits) if inspect.iscoroutine(waits) else waits
    except GuardError as error:
        end: dict[str, Any] = {"ended": error.kind, "why": error.message}
    else:
        end = {"ended": "waits" if waits else "done", "waits": waits}
    return {"model_calls": guard.runs.show(run_id).model_calls, **end}


def main(words: Sequence[str] | None = None) -> int:
    """Work until standard input ends."""
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("runtime", help="the agent's module, without on_")
    parser.add_argument("directory", type=Path, help="where conversations are kept")
    parser.add_argument("--store", required=True, help="agentguard's store")
    parser.add_argument("--otlp", default="", help="a collector that takes OTLP over HTTP")
    parser.add_argument("--phoenix", default="", help="an Arize Phoenix")
    arguments = parser.parse_args(words)
    with watched(arguments.runtime, otlp=arguments.otlp, phoenix=arguments.phoenix) as telemetry:
        runtime = importlib.import_module(f".on_{arguments.runtime}", __package__)
        guard = guard_of(arguments.store)
        for line in sys.stdin:
            done = work(runtime, guard, arguments.directory, *line.split())
            if telemetry:  # it may be killed in its next job
                telemetry.flush()
            print(json.dumps(done), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
