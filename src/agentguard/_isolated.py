"""A body in a process of its own: killed at its deadline, and never alive after its owner.

The child imports the tool by module and name, runs the undecorated function and answers. Both
sides write lines of JSON into one socket, which the child finds as its stdin; what the tool prints
goes where the parent's own output goes.

    parent   the request: which function, its arguments, the call
    child    {"refused": why}     it cannot run the tool; nothing began
    child    {"began": true}      said before the first line of the body
    child    {"result": …} or {"lost": why} or {"raised": …}

A child holds its owner's lock while it lives, so that a killed owner is not taken for dead before
its child is; and it ends itself as soon as the owner's end of the socket closes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from . import codec
from ._runtime import DeadlinePassed, InlineRuntime, Outcome, ResultLost, outcome_of
from ._signature import Returned, Signature
from .classify import http_errors
from .codec import NotStorable
from .errors import ConfigurationError, ContractViolation
from .model import NoEffect, Principal
from .run import Run, enter_elsewhere, executing
from .tool import Call, Failure, Tool, ToolRaised, declared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMMAND = (sys.executable, "-P", "-m", "agentguard._isolated")
_KNOWN: dict[tuple[str, str], tuple[Callable[..., Any], Any]] = {}
"""Undecorated functions and their contracts, by module and name."""
_INSIDE: list[bool] = []
"""Not empty in a child."""


def register(function: Any, contract: Any, tool: str) -> None:
    """Remember a function that is to run in processes of its own.

    Raises:
        ConfigurationError: another process could not import it.
    """
    inner = inspect.unwrap(function) if hasattr(function, "__agentguard__") else function
    module, name = _place(inner)
    problem = None
    if not inspect.isfunction(inner) or "." in name or name == "<lambda>":
        problem = f"is no function at the top of a module ({name})"
    elif module == "__main__":
        problem = "is defined in the script that was started, which would run again"
    if problem is not None:
        raise ConfigurationError(
            f'{tool} {problem}, so isolation="process" cannot import it in another process; make it a'
            " plain function of a module that can be imported"
        )
    _KNOWN[module, name] = (inner, contract)


def _place(function: Any) -> tuple[str, str]:
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", "<lambda>")


# The parent.


class ProcessRuntime(InlineRuntime):
    """Runs the body in a child and kills it, with all it started, at the deadline."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._call: Call | None = None
        self._lifeline: tuple[int, ...] = ()

    def take(self, call: Any, store: Any) -> None:
        """Get ready for *call*.

        Raises:
            ConfigurationError: this call cannot be made in another process.
            ContractViolation: an argument cannot be handed over.
        """
        if _INSIDE:
            raise ConfigurationError(
                f"{call.tool.name}: its module calls guarded tools when it is imported; put that under"
                ' if __name__ == "__main__"'
            )
        if call.given:
            raise ConfigurationError(
                f"{call.tool.name}: what the runtime passes in cannot be handed to another process; use"
                ' isolation="thread"'
            )
        try:
            call.tool.arguments.write(call.arguments)
        except NotStorable as error:
            raise ContractViolation(
                f"{call.tool.name}: its arguments cannot be handed to another process: {error}"
            ) from None
        self._call, self._lifeline = call, store.lifeline()

    async def invoke(self, body: Callable[[], Any], timeout: float | None) -> Outcome:
        """Run the tool in a child; *body*, which would run it here, is not used."""
        assert self._call is not None
        try:
            return _outcome(self._tool, _converse(self._call, self._lifeline, timeout), timeout)
        except BaseException as error:  # noqa: BLE001 - carried as a value, raised at the edge
            return None, error


def _converse(call: Call, lifeline: tuple[int, ...], timeout: float | None) -> tuple[bytes, int | None]:
    """Return all that the child said, and how it ended; None if it had to be killed."""
    until = None if timeout is None else time.monotonic() + timeout
    request = _line(_request(call, lifeline))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            _COMMAND, stdin=theirs, pass_fds=lifeline, start_new_session=True
        )
        theirs.close()
        try:
            said, ended = _listen(ours, request, until)
        except BaseException:
            _kill(child)
            raise
        if not ended:
            _kill(child)
            said += _rest(ours)
        return said, child.wait() if ended else None


def _listen(ours: socket.socket, request: bytes, until: float | None) -> tuple[bytes, bool]:
    """Send the request and collect the lines of the answer; False if time is up before it ends."""
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
    lines = said.count(b"\n")
    return said.endswith(b"\n") and lines > int(said.startswith(b'{"began"'))


def _rest(ours: socket.socket) -> bytes:
    """Return what a child that is dead by now has said."""
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


def _outcome(tool: Tool, heard: tuple[bytes, int | None], timeout: float | None) -> Outcome:
    """Return what the child's words, and its silence, say about the body."""
    said, code = heard
    answers = [json.loads(line) for line in said.split(b"\n")[:-1]]
    last = answers[-1] if answers else {"silent": True}
    if "result" in last:
        return tool.results.restore(last["result"]), None
    if "lost" in last:
        return None, ResultLost(last["lost"])
    if "raised" in last:
        return None, _raised(last["raised"])
    if "began" in last:
        return None, DeadlinePassed() if code is None else _died(tool, code)
    why = last.get("refused") or (f"it ended with {code}" if code is not None else f"{timeout} s are over")
    return None, NoEffect(f"{tool.name}: its process did not get as far as the tool: {why}")


def _died(tool: Tool, code: int) -> ToolRaised:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return _stand_in("agentguard", "ProcessDied")(f"the process of {tool.name} ended with {how}, unasked")


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
    module, name = _place(inspect.unwrap(tool.function))
    return {
        "path": sys.path,
        "lifeline": lifeline,
        "module": module,
        "name": name,
        "tool": tool.name,
        "effect": tool.effect,
        "by_schema": not isinstance(tool.arguments, Signature),
        "by_default": tool.classify is http_errors and not tool.retry.on,
        "arguments": tool.arguments.write(call.arguments),
        "principal": [who.agent, who.tenant, who.subject, who.version,
                      None if who.scopes is None else sorted(who.scopes)],
        "call": {
            "run_id": call.run_id, "payload_hash": call.payload_hash, "at": call.at,
            "step": call.step, "idempotency_key": call.idempotency_key, "scope": call.scope,
            "fence": call.fence, "attempt": call.attempt,
        },
        "deadline": _text(call.deadline),
        "first_started_at": _text(call.first_started_at),
    }  # fmt: skip


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _text(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)


# The child.


class _RunElsewhere(Run):
    """What `current_run()` is in a child: the run's name and the call, and nothing that counts."""

    def __init__(self, call: Call) -> None:
        self.id, self.principal = call.run_id, call.principal

    def __getattr__(self, name: str) -> Any:
        raise ConfigurationError(
            f"`{name}` of the run is not there in the process of an isolated tool, nor can it call"
            " guarded tools; it has current_run().call, .id and .principal"
        )


def serve() -> None:
    """Answer one request, then end with the body, whatever threads it left."""
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor, not a path
        os.dup2(nothing.fileno(), 0)
    _INSIDE.append(True)
    request = json.loads(channel.makefile("rb").readline())
    _stay_attached(channel, request["lifeline"])
    answer = _answer(channel, request)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more
            stream.flush()
    channel.sendall(_line(answer))
    os._exit(0)


def _stay_attached(channel: socket.socket, lifeline: list[int]) -> None:
    """End with the owner, and let no process that the tool starts hold what ties us to it."""
    for descriptor in lifeline:
        os.set_inheritable(descriptor, False)
        os.register_at_fork(after_in_child=lambda kept=descriptor: os.close(kept))
    os.register_at_fork(after_in_child=channel.close)
    threading.Thread(target=_end_with_owner, args=(channel,), daemon=True).start()


def _end_with_owner(channel: socket.socket) -> None:
    channel.recv(1)  # the owner says nothing more: this returns when its end is closed
    os.killpg(0, signal.SIGKILL)


def _answer(channel: socket.socket, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        body, tool = _prepared(request)
    except Exception as error:  # noqa: BLE001 - the parent is told, whatever it is
        return {"refused": f"{type(error).__name__}: {error}"}
    channel.sendall(_line({"began": True}))
    value, error = outcome_of(body)
    if error is not None:
        return {"raised": _told(error, tool)}
    try:
        return {"result": tool.results.write(value)}
    except NotStorable as unstorable:
        return {"lost": str(unstorable)}


def _prepared(request: Mapping[str, Any]) -> tuple[Callable[[], Any], Tool]:
    """Return the body with its arguments, ready to run in the call of the parent."""
    sys.path[:] = request["path"]
    function, contract = _find(request)
    signature = Signature(function, request["tool"], frozenset(), strict=False)
    tool = Tool(request["tool"], function, False, signature, Returned(function, request["tool"], strict=False),
                effect=request["effect"])  # fmt: skip
    tool.classify = contract.classify if contract else http_errors
    tool.retry = contract.retry if contract else tool.retry
    if request["by_schema"]:
        values, args, kwargs = codec.decode(request["arguments"]), [], {}
    values = signature.restore(request["arguments"])
    args, kwargs = signature.place(None, values, {})
    call = _call(request, tool, values)

    def body() -> Any:
        enter_elsewhere(_RunElsewhere(call))
        with executing(call):
            return function(*args, **kwargs)

    return body, tool
