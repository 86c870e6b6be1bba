"""The other side of `_isolated`: answers one request with one call of a tool, then ends."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._isolated import INSIDE, KNOWN, line
from ._runtime import outcome_of
from ._signature import Returned, Signature
from .canonical import jsonable
from .classify import http_errors
from .codec import NotStorable
from .costs import amount_of
from .errors import ConfigurationError
from .model import NoEffect, Principal
from .run import Run, enter, executing
from .tool import Call, Tool, declared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .tool import Arguments, Results


_SPEAKING = threading.Lock()
"""Threads of the tool tell costs; no line may begin amid another."""


def _say(channel: socket.socket, words: Mapping[str, Any]) -> None:
    with _SPEAKING:
        channel.sendall(line(words))


class RunElsewhere(Run):
    """What `current_run()` is here: the run's name and the call; costs are told to the owner."""

    def __init__(self, call: Call, channel: socket.socket) -> None:
        self.id, self.principal, self._channel = call.run_id, call.principal, channel

    def add_cost(self, kind: Any, usd: Any, *, note: str = "", ahead: bool = False) -> None:
        """Tell the owner what was spent; it is counted when the body has ended, however it ends."""
        if ahead:
            raise self._not_here("add_cost(ahead=True)")
        _say(self._channel, {"cost": [kind, amount_of(kind, usd), note]})

    def add_human_minutes(self, *_given: Any, **_more: Any) -> None:
        """Refuse it: what an hour costs is known to the owner."""
        raise self._not_here("add_human_minutes")

    def __getattr__(self, name: str) -> Any:
        raise self._not_here(name)

    def _not_here(self, name: str) -> ConfigurationError:
        return ConfigurationError(
            'with isolation="process", a tool has current_run().call, .id, .principal and .add_cost;'
            f" it has no .{name} and cannot call guarded tools"
        )


def serve() -> None:
    """Answer one request, then end with the body, whatever threads it left."""
    channel = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    INSIDE.append(True)
    request = json.loads(channel.makefile("rb").readline())
    _stay_attached(channel, request["lifeline"])
    answer = _answer(channel, request)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more
            stream.flush()
    _say(channel, answer)
    os._exit(0)


def _stay_attached(channel: socket.socket, lifeline: list[int]) -> None:
    """End with the owner, and let no process that the tool starts hold what ties us to it."""
    for descriptor in lifeline:
        os.set_inheritable(descriptor, False)

    def let_go() -> None:
        channel.close()
        for descriptor in lifeline:
            os.close(descriptor)

    os.register_at_fork(after_in_child=let_go)
    threading.Thread(target=_end_with_owner, args=(channel,), daemon=True).start()


def _end_with_owner(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):  # as good as closed
        channel.recv(1)  # the owner says nothing more: this returns when its end is closed
    os.killpg(0, signal.SIGKILL)


def _answer(channel: socket.socket, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        body, tool = _prepared(request, channel)
    except Exception as error:  # noqa: BLE001 - the parent is told, whatever it is
        return {"refused": f"{type(error).__name__}: {error}"}
    _say(channel, {"began": True})
    value, raised = outcome_of(body)
    if raised is not None:
        return {"raised": _told(raised, tool)}
    try:
        return {"result": tool.results.write(value)}
    except NotStorable as error:
        return {"lost": str(error)}


def _prepared(request: Mapping[str, Any], channel: socket.socket) -> tuple[Callable[[], Any], Tool]:
    """Return the body with its arguments, ready to run as the parent's call."""
    sys.path[:] = request["path"]
    function, contract = _find(request)
    arguments, results = _forms(function, request)
    tool = Tool(
        request["tool"], function, is_async=False, arguments=arguments, results=results,
        effect=request["effect"],
    )  # fmt: skip
    tool.classify = contract.classify if contract else http_errors
    tool.retry = contract.retry if contract else tool.retry
    call = _call(request, tool)
    args, kwargs = arguments.place(None, call.arguments, {})

    def body() -> Any:
        with enter(RunElsewhere(call, channel)), executing(call):
            return function(*args, **kwargs)

    return body, tool


def _find(request: Mapping[str, Any]) -> tuple[Callable[..., Any], Any]:
    """Return the undecorated function and its contract, if it is decorated where it stands."""
    module, name = request["module"], request["name"]
    found = vars(importlib.import_module(module)).get(name)
    if (module, name) in KNOWN:
        return KNOWN[module, name]
    if not callable(found):
        raise ConfigurationError(f"there is no function {name} in {module}")
    if request["own_rules"]:
        raise ConfigurationError(
            f"{name} is protected from outside, so its classify and Retry(on=...) cannot be found in"
            " another process; decorate it where it is defined"
        )
    return found, None


def _forms(function: Any, request: Mapping[str, Any]) -> tuple[Arguments, Results]:
    tool = request["tool"]
    if request["by_schema"]:
        from ._jsonschema import SchemaArguments, SchemaResults

        return SchemaArguments({}, tool, frozenset()), SchemaResults(None, tool)
    return (
        Signature(function, tool, frozenset(), strict=False),
        Returned(function, tool, strict=False),
    )


def _call(request: Mapping[str, Any], tool: Tool) -> Call:
    values = tool.arguments.restore(request["arguments"])
    scopes = request["scopes"]
    call = Call(
        tool=tool,
        principal=Principal(
            **request["principal"], scopes=None if scopes is None else frozenset(scopes)
        ),
        arguments=values,
        given={},
        plain={name: jsonable(value, name) for name, value in values.items()},
        **request["call"],
    )
    call.deadline = _moment(request["deadline"])
    call.first_started_at = _moment(request["first_started_at"])
    return call


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)


def _told(error: BaseException, tool: Tool) -> dict[str, Any]:
    """Return what the parent needs to know of an exception of the tool."""
    failure = declared(error, tool.retry)
    if failure is None and tool.effect != "read":
        failure = tool.classify(error)
    return {
        "module": type(error).__module__,
        "name": type(error).__name__,
        "message": str(error),
        "no_effect": error.retryable if isinstance(error, NoEffect) else None,
        "failure": None if failure is None else dataclasses.asdict(failure),
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    serve()
