"""Semantic Kernel with its own spans: every way in which a guarded function is called."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.functions import kernel_function

from agentguard import Guard, Principal, config, idempotent, requires_approval, tool_contract
from agentguard_semantic_kernel import SemanticKernelHost, guard_kernel
from tests.beside.spans import Recorder, recording, show, work
from tests.semantic_kernel.world import Talk, call, scripted

WHO = Principal(agent="support", scopes=frozenset({"payments"}))
POLICY = config.loads("""
agent_run:
  workflow: payments
  tools:
    shop-pay: {effect: write, idempotency: {key: "pay:{to}"}, approval: {when: "amount > 50"}}
    shop-drop: {effect: write, idempotency: {key: "drop:{to}"}, scopes: [admin]}
""")


def pay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    return work(f"{to} {amount}")


async def apay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    await asyncio.sleep(0)
    return work(f"{to} {amount}")


def drop(to: str) -> str:
    """Drop *to*."""
    return work(to)


def decorated(*, asynchronous: bool, name: str = "pay") -> list[Any]:
    """Decorated functions; the kernel knows them as `shop-pay` and `shop-drop`."""
    function: Any = apay if asynchronous else pay
    paying = requires_approval(when="amount > 50")(idempotent(key="pay:{to}")(function))
    guarded = tool_contract(effect="write", name=name)(paying)
    dropping = tool_contract(effect="write", scopes=["admin"])(idempotent(key="drop:{to}")(drop))
    return [kernel_function(guarded, name="pay"), kernel_function(dropping)]


def undecorated(*, asynchronous: bool) -> list[Any]:
    """The same functions, guarded by the configuration's policy of their names."""
    return [kernel_function(apay if asynchronous else pay, name="pay"), kernel_function(drop)]


def paid(amount: int, *calls: str) -> list[Any]:
    """The model pays, once for each of *calls*, and is done."""
    return [*(call(("pay", {"to": "ann", "amount": amount}, one)) for one in calls), "done"]


SCRIPTS: dict[str, list[Any]] = {
    "ok": paid(5, "1"),
    "wait": paid(100, "1"),
    "deny": [call(("drop", {"to": "ann"}, "1")), "done"],
    "replay": paid(5, "1", "2"),
    "two": [call(*(("pay", {"to": to, "amount": 5}, to) for to in ("ann", "bob"))), "done"],
}


def kernel_of(guard: Guard, functions: list[Any], *script: Any) -> Kernel:
    """A guarded kernel with a plugin `shop`, and a model if there is a script."""
    kernel = Kernel(services=[scripted(*script)] if script else [])
    for function in functions:
        kernel.add_function("shop", function)
    return guard_kernel(kernel, guard)


def approve(guard: Guard) -> None:
    """Say yes to all that waits."""
    for approval in guard.approvals.list("pending"):
        guard.approvals.decide(approval.id, "approve", by="dana")


async def talk(recorder: Recorder, kind: str, way: str, functions: list[Any]) -> None:
    """Let a model call functions in all ways that its scripts say."""
    for case, script in SCRIPTS.items():
        name = f"{kind}, {way}: {case}"
        settings = POLICY if way.startswith("configured") else None
        guarding = closing(Guard("memory://", principal=WHO, config=settings))
        with recorder.case(name), guarding as guard:
            one = Talk(kernel_of(guard, functions, *script), kind)
            async with guard.run("payments", run_id=name):
                await one.ask("hello")
            if guard.approvals.list("pending"):
                approve(guard)
                async with guard.run("payments", run_id=name):
                    await one.ask()


async def invoke(recorder: Recorder, way: str, functions: list[Any]) -> None:
    """Call a function that no model has called, outside of any run: it gets one of its own."""
    name = f"invoke, {way}: ok"
    settings = POLICY if way.startswith("configured") else None
    guarding = closing(Guard("memory://", principal=WHO, config=settings))
    with recorder.case(name), guarding as guard:
        kernel = kernel_of(guard, functions)
        await kernel.invoke(plugin_name="shop", function_name="pay", to="ann", amount=5)


async def inside(recorder: Recorder, *, known: bool) -> None:
    """Call a guarded function by hand in one of the same name that is not guarded.

    It is a wrapper around the guarded one, unless the kernel has that one as a function, too.
    """
    name = "a function in another's: ok" if known else "a function in its wrapper: ok"
    with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard:
        guarded = decorated(asynchronous=False)[0]
        kernel = kernel_of(guard, [guarded] if known else [])

        def body(to: str) -> str:
            """Pay *to* in this function's own way."""
            return str(guarded(to=to, amount=5))

        kernel.add_function("batch", kernel_function(body, name="pay"))
        async with guard.run("payments", run_id=name):
            await kernel.invoke(plugin_name="batch", function_name="pay", to="ann")


async def main() -> None:
    """Do it all and show the spans."""
    recorder = recording(SemanticKernelHost)
    ways = {
        "decorated sync": decorated(asynchronous=False),
        "decorated async": decorated(asynchronous=True),
        "decorated dotted": decorated(asynchronous=False, name="payments.pay"),
        "configured sync": undecorated(asynchronous=False),
        "configured async": undecorated(asynchronous=True),
    }
    for way, functions in ways.items():
        await talk(recorder, "service", way, functions)
        await invoke(recorder, way, functions)
    await talk(recorder, "agent", "decorated sync", ways["decorated sync"])
    await talk(recorder, "agent stream", "configured async", ways["configured async"])
    await inside(recorder, known=True)
    await inside(recorder, known=False)
    show(recorder)


if __name__ == "__main__":
    asyncio.run(main())
