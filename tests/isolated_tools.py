"""Tools that run in processes of their own: these must be importable, so they stand in a module."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.error
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentguard import (
    ConfigurationError,
    NoEffect,
    Retry,
    current_run,
    idempotent,
    tool_contract,
)
from agentguard.caching import cached


class Line(BaseModel):
    """A line of an order."""

    product: str
    price: Decimal


class NotSent(Exception):
    """Declared by a tool to have had no effect."""


def happen(world: Path, effect: str) -> None:
    """Let *effect* happen, for good."""
    with world.open("a") as file:
        file.write(f"{effect}\n")


in_a_process = tool_contract(effect="write", isolation="process")
write = idempotent(key="{key}")


@in_a_process
@write
def refund(key: str, world: Path, line: Line, more: list[bytes]) -> dict[str, Any]:
    """Refund a line and tell everything about the place it happens in."""
    happen(world, f"refund {key} {line.price} {more!r}")
    run = current_run()
    return {
        "process": os.getpid(),
        "run": run.id,
        "tenant": run.principal.tenant,
        "key": run.call.idempotency_key,
        "fence": run.call.fence,
        "attempt": run.call.attempt,
        "deadline": run.call.deadline,
        "arguments": run.call.arguments["line"].price,
        "folder": os.getcwd(),  # noqa: PTH109 - as the tool sees it
        "setting": os.environ.get("AGENTGUARD_TEST_SETTING"),
    }


@in_a_process
@write
def noisy(key: str) -> str:
    """Print on every channel a tool may find, and read stdin, which is empty."""
    print("out", key)  # noqa: T201 - it is noisy
    print('{"result": "j0"}', file=sys.stderr)  # noqa: T201 - it is noisy
    subprocess.run(["echo", '{"result": "j1"}'], check=True)
    return f"heard {sys.stdin.read()!r}"


@in_a_process
@write
def big(key: str, size: int) -> str:
    """Return more than any pipe holds."""
    return key * size


@in_a_process
@write
def unstorable(key: str, world: Path) -> Any:
    """Return what no JSON can carry."""
    happen(world, key)
    return object()


@tool_contract(effect="write", isolation="process", timeout=4)
@write
def stuck(key: str, world: Path) -> str:
    """Begin, and never end; start a process that never ends either."""
    happen(world, f"begun {key}")
    current_run().add_cost("tool", "0.01")
    subprocess.run(["tail", "-f", os.devnull], check=True, stdout=(world.parent / "pipe").open("w"))
    return key


@tool_contract(effect="write", isolation="process", retry=Retry(attempts=3, wait=0, on=(NotSent,)))
@write
def failing(key: str, world: Path, how: str) -> str:
    """Fail in the way that is asked for."""
    happen(world, f"{how} {current_run().call.attempt}")
    FAILURES[how]()
    return key


@tool_contract(effect="read", isolation="process", retry=Retry(attempts=3, wait=0))
def look(world: Path, how: str) -> str:
    """Fail while reading."""
    happen(world, f"{how} {current_run().call.attempt}")
    FAILURES[how]()
    return "seen"


@in_a_process
@write
def nesting(key: str) -> str:
    """Call a guarded tool from inside."""
    return str(noisy(key))


@in_a_process
@write
def threading_tool(key: str) -> str:
    """Leave a thread behind that would never end."""
    threading.Thread(target=threading.Event().wait).start()
    return key


def plain(key: str) -> int:
    """Be protected from outside."""
    del key
    return os.getpid()


def anything(value: Any) -> Any:
    """Return what it gets."""
    return value


def _refuse(error: BaseException) -> Any:
    def fail() -> None:
        raise error

    return fail


def _http(code: int, **headers: str) -> Exception:
    told = Message()
    for name, value in headers.items():
        told[name.replace("_", "-")] = value
    return urllib.error.HTTPError("http://x", code, "said no", told, None)


FAILURES = {
    "nothing sent": _refuse(NotSent("not sent")),
    "no effect": _refuse(NoEffect("try again")),
    "no effect for good": _refuse(NoEffect("never", retryable=False)),
    "connection refused": _refuse(ConnectionRefusedError(111, "refused")),
    "404": _refuse(_http(404)),
    "409": _refuse(_http(409)),
    "429": _refuse(_http(429, Retry_After="0")),
    "500": _refuse(_http(500)),
    "value": _refuse(ValueError("is it done?")),
    "exit": lambda: sys.exit(3),
    "os exit": lambda: os._exit(3),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop iteration": _refuse(StopIteration()),
    "keyboard": _refuse(KeyboardInterrupt()),
}


@in_a_process
@write
def paid(key: str, ends: str) -> str:
    """Pay twice, and end in one way or another."""
    run = current_run()
    try:
        if ends == "ahead":
            run.add_cost("tool", "0.10", ahead=True)
        if ends == "people":
            run.add_human_minutes(1, by="dana")
    except ConfigurationError as refused:
        raise NoEffect(str(refused)) from refused
    run.add_cost("tool", "0.10", note="first")
    run.add_cost("retrieval", Decimal("0.20"))
    if ends == "raises":
        raise NoEffect("no")
    if ends == "dies":
        os._exit(9)
    return key


@cached("twice", version="1")
def twice(text: str) -> str:
    """Say it twice."""
    return 2 * text


@in_a_process
@write
def derived(key: str) -> str:
    """Return what a cached function derives."""
    return twice(key)
