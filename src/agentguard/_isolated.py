"""A body in a process of its own: killed at its deadline, and never alive after its owner.

The child (`_child`) imports the tool by module and name, runs the undecorated function and answers.
Both sides write lines of JSON into one socket, which the child finds as its stdin; what the tool
prints goes where the parent's own output goes.

    parent   the request: which function, its arguments, the call
    child    {"refused": why}     it cannot run the tool; nothing began
    child    {"began": true}      said before the first line of the body
    child    {"cost": [kind, nano-dollars, note]}   as often as the body tells one
    child    {"result": …} or {"lost": why} or {"raised": …}

A child holds its owner's lock while it lives, so that a killed owner is not taken for dead before
its child is; and it ends itself as soon as the owner's end of the socket closes.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._runtime import DeadlinePassed, InlineRuntime, Outcome, ResultLost
from ._signature import Signature
from .classify import http_errors
from .codec import NotStorable
from .costs import owe
from .errors import ConfigurationError, ContractViolation
from .model import NoEffect
from .run import active_run
from .tool import Failure, ToolRaised

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping

    from .protocols import Store
    from .tool import Call

KNOWN: dict[tuple[str, str], tuple[Callable[..., Any], Any]] = {}
"""Undecorated functions and their contracts, by module and name."""
INSIDE: list[bool] = []
"""Not empty in a child."""


def register(function: Any, contract: Any, tool: str) -> None:
    """Remember a function that is to run in processes of its own.

    Raises:
        ConfigurationError: another process could not import it.
    """
    inner = function.__wrapped__ if hasattr(function, "__agentguard__") else function
    module, name = place(inner)
    problem = None
    if not inspect.isfunction(inner) or "." in name or name == "<lambda>":
        problem = "is no function at the top of a module"
    elif module == "__main__":
        problem = "is defined in the script that was started, which would run again"
    if problem is not None:
        raise ConfigurationError(
            f'{tool} {problem}, so isolation="process" cannot import it in another process; make it a'
            " plain function of a module that can be imported"
        )
    KNOWN[module, name] = (inner, contract)


def place(function: Any) -> tuple[str, str]:
    """Return the module and the name by which another process finds *function*."""
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", "<lambda>")


class ProcessRuntime(InlineRuntime):
    """Runs the body in a child and kills it, with all it started, at the deadline."""

    _call: Call
    _lifeline: tuple[int, ...]

    def take(self, call: Call, store: Store) -> None:
        """Get ready for *call*.

        Raises:
            ConfigurationError: this call cannot be made in another process.
            ContractViolation: an argument cannot be handed over.
        """
        if INSIDE:
            raise ConfigurationError(
                f"{call.tool.name}: its module calls guarded tools when it is imported; put that under"
                ' if __name__ == "__main__"'
            )
        if call.given:
            raise ConfigurationError(
                f"{call.tool.name}: what the runtime passes in cannot be handed to another process;"
                ' use isolation="thread"'
            )
        try:
            call.tool.arguments.write(call.arguments)
        except NotStorable as error:
            raise ContractViolation(
                f"{call.tool.name}: its arguments cannot be handed to another process: {error}"
            ) from None
        self._call, self._lifeline = call, store.lifeline()

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        """Run the tool in a child; the body itself, which would run it here, is not used."""
        del body
        try:
            heard = _converse(self._call, self._lifeline, seconds)
            _count_costs(self._call, heard)
            return _outcome(self._call, heard)
        except BaseException as error:  # noqa: BLE001 - carried as a value, raised at the edge
            return None, error


@dataclass(frozen=True, slots=True)
class _Heard:
    """All that a child said, and its exit code; None if its time was up."""

    said: bytes
    code: int | None


def _converse(call: Call, lifeline: tuple[int, ...], seconds: float | None) -> _Heard:
    until = None if seconds is None else time.monotonic() + seconds
    request = line(_request(call, lifeline))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "agentguard._child"],
            stdin=theirs.fileno(), pass_fds=lifeline, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        try:
            said, in_time = _listen(ours, request, until)
        except BaseException:
            _kill(child)
            raise
        if in_time:
            return _Heard(said, child.wait())
        _kill(child)
        return _Heard(said + _rest(ours), None)


def _listen(ours: socket.socket, request: bytes, until: float | None) -> tuple[bytes, bool]:
    """Send the request and collect the answer; False if time is up before it ends."""
    said = b""
    try:
        ours.settimeout(_left(until))
        ours.sendall(request)
        while not _is_whole(said):
            ours.settimeout(_left(until))
            part = ours.recv(65_536)
            if not part:
                break
            said += part
    except TimeoutError:
        return said, False
    except ConnectionError:  # it ended with our request unread
        return said, True
    return said, True


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_whole(said: bytes) -> bool:
    if not said.endswith(b"\n"):
        return False
    last = said[said.rfind(b"\n", 0, -1) + 1 :]
    return not last.startswith((b'{"began"', b'{"cost"'))


def _rest(ours: socket.socket) -> bytes:
    """Return what a child that is dead by now had said."""
    ours.setblocking(False)
    said = b""
    with contextlib.suppress(BlockingIOError, ConnectionError):  # that was all
        while part := ours.recv(65_536):
            said += part
    return said


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _words(heard: _Heard) -> list[dict[str, Any]]:
    return [json.loads(each) for each in heard.said.split(b"\n")[:-1]]


def _count_costs(call: Call, heard: _Heard) -> None:
    """Count what the body told of its costs, however it ended."""
    run = active_run()
    if run is None or b'{"cost"' not in heard.said:
        return
    for words in _words(heard):
        if "cost" in words:
            owe(run, call, *words["cost"])


def _outcome(call: Call, heard: _Heard) -> Outcome:
    """Return what the child's words, and its silence, say about the body."""
    words: dict[str, Any] = {}
    for each in _words(heard):
        words |= each
    if "result" in words:
        return call.tool.results.restore(words["result"]), None
    if "lost" in words:
        return None, ResultLost(words["lost"])
    if "raised" in words:
        return None, _raised(words["raised"])
    if "began" in words:
        return None, DeadlinePassed() if heard.code is None else _died(call, heard.code)
    why = words.get("refused") or _ending(heard.code)
    return None, NoEffect(f"{call.tool.name}: its process did not get as far as the tool: {why}")


def _ending(code: int | None) -> str:
    if code is None:
        return "its time was up"
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _died(call: Call, code: int) -> ToolRaised:
    kind = _stand_in("agentguard", "ProcessDied")
    return kind(f"the process of {call.tool.name} did not finish: {_ending(code)}")


def _raised(told: Mapping[str, Any]) -> Exception:
    """Return an exception that stands for the child's."""
    if told["no_effect"] is not None:
        return NoEffect(told["message"], retryable=told["no_effect"])
    error = _stand_in(told["module"], told["name"])(told["message"])
    error.failure = Failure(**told["failure"]) if told["failure"] else None
    error.add_note(told["traceback"])
    return error


def _stand_in(module: str, name: str) -> type[ToolRaised]:
    """A class that is called like the child's: nothing is imported because a child says so."""
    return type(name, (ToolRaised,), {"__module__": module})


def _request(call: Call, lifeline: tuple[int, ...]) -> dict[str, Any]:
    tool, who = call.tool, call.principal
    module, name = place(tool.function)
    return {
        "path": sys.path,
        "lifeline": lifeline,
        "module": module,
        "name": name,
        "tool": tool.name,
        "effect": tool.effect,
        "by_schema": not isinstance(tool.arguments, Signature),
        "own_rules": bool(tool.retry.on) or tool.classify is not http_errors,
        "arguments": tool.arguments.write(call.arguments),
        "principal": {
            "agent": who.agent, "tenant": who.tenant, "subject": who.subject,
            "version": who.version,
        },
        "scopes": None if who.scopes is None else sorted(who.scopes),
        "call": {
            "run_id": call.run_id, "payload_hash": call.payload_hash, "at": call.at,
            "step": call.step, "idempotency_key": call.idempotency_key, "scope": call.scope,
            "fence": call.fence, "attempt": call.attempt,
        },
        "deadline": _text(call.deadline),
        "first_started_at": _text(call.first_started_at),
    }  # fmt: skip


def _text(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def line(value: Any) -> bytes:
    """Return *value* as one line of JSON."""
    return json.dumps(value).encode() + b"\n"
