"""The world outside agentguard: files that only grow, and the tools that act on it."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import threading
from decimal import Decimal  # noqa: TC003 - tools' annotations are read at run time
from typing import TYPE_CHECKING, Any

from ... import (
    Happened,
    NoEffect,
    NotHappened,
    budget,
    compensated_by,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from ...model import VerifierIdentity
from .scene import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "hunter2-hunter2"  # noqa: S105 - what must never reach a model
Body = Any


class World:
    """What really happened, in one folder; it knows nothing of the record.

    Flags are files too, so that every process of a test sees them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = threading.Event()
        self.now: Callable[..., None] = lambda **_: None
        folder.mkdir(parents=True, exist_ok=True)

    def happen(self, effect: str) -> None:
        """Let *effect* happen, for good: one write, which no kill can tear."""
        descriptor = os.open(self.folder / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{effect}\n".encode())
        finally:
            os.close(descriptor)

    @property
    def effects(self) -> list[str]:
        """Everything that happened, in order."""
        path = self.folder / "effects"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def raise_flag(self, name: str) -> None:
        """Let *name* be true from now on."""
        (self.folder / name).touch()

    def lower_flag(self, name: str) -> bool:
        """Let *name* be false from now on; return whether it was true."""
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def flag(self, name: str) -> bool:
        """Return whether *name* is true."""
        return (self.folder / name).exists()


def tools_of(world: World, *, is_async: bool) -> dict[str, Callable[..., Any]]:
    """Return the decorated tools of *world*, by name."""
    decorated = [
        decorate(_coloured(body, is_async=is_async)) for decorate, body in _declared(world)
    ]
    return {tool.__name__: tool for tool in decorated}


def bare_tools_of(world: World, *, is_async: bool) -> list[Callable[..., Any]]:
    """Return the same functions without any decorator of ours."""
    return [_coloured(body, is_async=is_async) for _, body in _declared(world)]


def _declared(world: World) -> list[tuple[Callable[[Body], Body], Body]]:
    """Pair each tool with what its decorators say."""
    return [
        (_paying(world), _pay(world)),
        (_commenting(), _comment(world)),
        (tool_contract(effect="read"), _look(world)),
        (tool_contract(effect="read"), _who()),
        (tool_contract(effect="read"), _lie()),
        (tool_contract(effect="read"), _wait(world)),
        (_closing(world), _close(world)),
        (_stacked(tool_contract(effect="write"), idempotent(key="lose:{ticket}")), _lose(world)),
        (_stacked(tool_contract(effect="write"), idempotent(key="try:{ticket}")), _try(world)),
        (_administering(), _erase(world)),
        (_hanging(), _hang(world)),
        (_ordering(world), _order(world)),
        (_shipping(), _ship(world)),
        (_ringing(), _ring(world)),
    ]


def _stacked(*decorators: Callable[[Body], Body]) -> Callable[[Body], Body]:
    return lambda body: functools.reduce(lambda inner, outer: outer(inner), decorators, body)


def _coloured(body: Body, *, is_async: bool) -> Body:
    """Return *body*, or the same as `async def`."""
    if not is_async:
        return body

    @functools.wraps(body)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        done = body(*args, **kwargs)
        return await done if asyncio.isfuture(done) else done

    return awaited


def _paying(world: World) -> Callable[[Body], Body]:
    """A refund: asks a person above 50, may move 100 in a run, can be looked up if *world* says so."""

    def found(call: Any) -> Happened | NotHappened:
        effect = f"pay {call.arguments['ticket']} {call.arguments['amount']}"
        return Happened(_paid(call.arguments)) if effect in world.effects else NotHappened()

    hook = found if world.flag("hook") else None
    return _stacked(
        tool_contract(effect="write", sensitive=["note"]),
        idempotent(key="pay:{ticket}", reconcile=hook),
        requires_approval(when="amount > 50", roles=["finance"], expires="1h", allow_edit=True),
        budget(max_spend_usd="100", cost="amount"),
    )


def _paid(arguments: Any) -> str:
    return f"paid {arguments['amount']} for {arguments['ticket']}"


def _pay(world: World) -> Body:
    def pay(ticket: str, amount: Decimal, note: str = "") -> str:
        """Pay money back to the customer of a ticket."""
        del note
        _die(world, "die before the effect")
        world.happen(f"pay {ticket} {amount}")
        _die(world, "die after the effect")
        return _paid({"ticket": ticket, "amount": amount})

    return pay


def _die(world: World, when: str) -> None:
    """Be killed here, once, if the test wants it."""
    if world.lower_flag(when):
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def _commenting() -> Callable[[Body], Body]:
    return _stacked(tool_contract(effect="write"), idempotent(per="call"), budget(max_calls=3))


def _comment(world: World) -> Body:
    def comment(ticket: str, text: str) -> str:
        """Write a comment on a ticket."""
        world.happen(f"comment {ticket} {text}")
        return f"commented on {ticket}"

    return comment


def _look(world: World) -> Body:
    def look(ticket: str) -> str:
        """Look a ticket up."""
        world.happen(f"look {ticket}")
        return f"{ticket} is open"

    return look


def _who() -> Body:
    def who(ticket: str) -> str:
        """Tell in whose name and in which run and call this is executed."""
        run = current_run()
        return json.dumps([ticket, run.id, run.principal.agent, run.principal.tenant, run.call.id])

    return who


def _lie() -> Body:
    def lie(ticket: str) -> int:
        """Count the comments of a ticket."""
        return f"many, on {ticket}"  # type: ignore[return-value] # this is what the test is about

    return lie


def _wait(world: World) -> Body:
    def wait(ticket: str, seconds: int) -> str:
        """Wait for an answer of the customer."""
        world.now(seconds=seconds)
        return f"waited {seconds} s on {ticket}"

    return wait


def _closing(world: World) -> Callable[[Body], Body]:
    """Closing a ticket asks a person whenever the world says so: a rule that can flip."""
    return _stacked(
        tool_contract(effect="write"),
        idempotent(key="close:{ticket}"),
        requires_approval(when=lambda ticket: world.flag("careful"), roles=["finance"]),  # noqa: ARG005 - rules are called by argument names
    )


def _close(world: World) -> Body:
    def close(ticket: str) -> str:
        """Close a ticket."""
        world.happen(f"close {ticket}")
        return f"closed {ticket}"

    return close


def _lose(world: World) -> Body:
    def lose(ticket: str) -> str:
        """Ship a replacement."""
        world.happen(f"lose {ticket}")
        raise ConnectionError(f"the answer was lost; password={SECRET}")

    return lose


def _try(world: World) -> Body:
    def reserve(ticket: str) -> str:
        """Reserve a replacement in the warehouse."""
        if not world.flag("open"):
            world.raise_flag("open")
            raise NoEffect("the warehouse was closed")
        world.happen(f"reserve {ticket}")
        return f"reserved for {ticket}"

    return reserve


def _administering() -> Callable[[Body], Body]:
    return _stacked(
        tool_contract(effect="write", scopes=["admin"]), idempotent(key="erase:{ticket}")
    )


def _erase(world: World) -> Body:
    def erase(ticket: str) -> str:
        """Erase a ticket."""
        world.happen(f"erase {ticket}")
        return f"erased {ticket}"

    return erase


def _hanging() -> Callable[[Body], Body]:
    return _stacked(tool_contract(effect="write"), idempotent(key="hang:{ticket}"))


def _hang(world: World) -> Body:
    def hang(ticket: str) -> str:
        """Call a customer, who does not pick up the first time."""
        world.happen(f"hang {ticket}")
        if world.started.is_set():
            return f"talked about {ticket}"
        world.started.set()
        return asyncio.get_running_loop().create_future()  # type: ignore[return-value] # awaited, for ever

    return hang


def _ordering(world: World) -> Callable[[Body], Body]:
    """An order that somebody checks, and that is cancelled if it is not as it should be."""

    def as_it_should_be(arguments: Any, _result: Any) -> bool:
        return f"order {arguments['ticket']}" in world.effects and not world.flag("refuted")

    def cancel(ticket: str) -> str:
        world.happen(f"cancel {ticket}")
        return f"cancelled for {ticket}"

    return _stacked(
        tool_contract(effect="write"),
        idempotent(key="order:{ticket}"),
        verified_by(as_it_should_be),
        compensated_by(lambda result, ticket: cancel(ticket)),  # noqa: ARG005 - the undo is given both
    )


def _order(world: World) -> Body:
    def order(ticket: str) -> str:
        """Order a replacement."""
        world.happen(f"order {ticket}")
        return f"ordered for {ticket}"

    return order


def _shipping() -> Callable[[Body], Body]:
    """A shipment that the scripted model itself would confirm, under a provider's name for it."""

    def itself(_arguments: Any, _result: Any) -> bool:
        return True

    identity = VerifierIdentity("model", "itself", model=f"openai:{MODEL}-2026-05-13")
    itself.identity = identity  # type: ignore[attr-defined] # as verifiers of one's own say it
    return _stacked(
        tool_contract(effect="write"), idempotent(key="ship:{ticket}"), verified_by(itself)
    )


def _ship(world: World) -> Body:
    def ship(ticket: str) -> str:
        """Ship a replacement by courier."""
        world.happen(f"ship {ticket}")
        return f"shipped for {ticket}"

    return ship


def _ringing() -> Callable[[Body], Body]:
    """A call centre that is left alone after two failures."""
    return _stacked(
        tool_contract(effect="write", circuit={"failures": 2}), idempotent(key="ring:{ticket}")
    )


def _ring(world: World) -> Body:
    def ring(ticket: str) -> str:
        """Have the call centre ring a customer."""
        world.happen(f"ring {ticket}")
        raise NoEffect("the line is busy")

    return ring
