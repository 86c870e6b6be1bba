"""A shop whose payments can fail, under service levels: what the tests of enforcement begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from agentguard import Guard, NoEffect, idempotent, tool_contract, verified_by
from agentguard.config import Settings
from agentguard.errors import GuardError
from agentguard.slos import Demotion, Slo, Window
from agentguard.testing import FakeClock
from tests.support import World

WORKFLOW = "refunds"
TO_APPROVE = Demotion("approve", "approve")


def level(name: str = "runs", *, sli: Any = "success", **more: Any) -> Slo:
    """Return a service level over the workflow, or over the tool `pay`, that five outcomes judge."""
    over = {"tool": "pay"} if sli == "correctness" else {"workflow": WORKFLOW}
    chosen = {
        "target": Decimal("0.9"), "window": Window(last=20), "min_count": 5, "demote": TO_APPROVE,
        **over, **more,
    }  # fmt: skip
    return Slo(name, sli, **chosen)


class Shop:
    """A guard, its clock, and a tool that pays as long as the payments service works.

    Attributes:
        broken: what paying raises now; None while it works.
        wrong: a verifier finds wrong what was paid.
    """

    def __init__(self, world: World, url: str, *slos: Slo, **settings: Any) -> None:
        self.world, self.url, self.clock = world, url, FakeClock()
        self.broken: Callable[[], Exception] | None = None
        self.wrong = False
        self.settings = Settings(slos=slos, **settings)
        self.guard = self.another()
        self.pay = self.tool("pay")
        self.calls = 0

    def another(self, *, without_config: bool = False) -> Guard:
        """Return a guard on the same store, as another process has one."""
        if self.url == "memory://" and hasattr(self, "guard"):
            store: Any = self.guard.store
        else:
            store = self.url
        settings = Settings() if without_config else self.settings
        clock = self.clock if isinstance(store, str) else None
        return Guard(store, config=settings, clock=clock)

    def tool(self, name: str, *policies: Any, **contract: Any) -> Any:
        """Return a tool that makes something happen, or fails as the shop is set."""

        def body(ticket: str) -> str:
            if self.broken is not None:
                raise self.broken()
            return self.world.happen(f"{name} {ticket}")

        body.__name__ = name
        confirmed = verified_by(lambda _arguments, _result: not self.wrong)
        tool: Any = tool_contract(**{"effect": "write", **contract})(body)
        tool = idempotent(key=f"{name}:{{ticket}}")(tool)
        for policy in (confirmed, *policies):
            tool = policy(tool)
        return tool

    def call(self, tool: Any = None, ticket: str = "", **run: Any) -> Any:
        """Make one call in a run of its own; return the result, or the error."""
        self.calls += 1
        self.clock.advance(0.001)
        options = {"workflow": WORKFLOW, **run}
        guard: Guard = options.pop("guard", self.guard)
        try:
            with guard.run(options.pop("workflow"), **options):
                return (tool or self.pay)(ticket or f"T-{self.calls}")
        except (GuardError, NoEffect, ConnectionError) as error:
            return error

    def calls_of(self, many: int, **run: Any) -> list[Any]:
        """Make so many calls, each in a run of its own."""
        return [self.call(**run) for _ in range(many)]

    def breaks(self) -> None:
        """Have the payments service refuse from now on, with no effect."""
        self.broken = lambda: NoEffect("no funds", retryable=False)

    def heals(self) -> None:
        """Have it work again."""
        self.broken = None

    def counts(self, name: str = "runs") -> tuple[int, int]:
        """Return (good, bad) as they are counted ever."""
        [found] = [level for level in self.guard.slos.status() if level.head.slo == name]
        return found.head.good, found.head.bad

    def stage(self, name: str = "runs") -> str | None:
        """Return the stage at which autonomy ends; None if nowhere."""
        [found] = [level for level in self.guard.slos.status() if level.head.slo == name]
        return found.head.stage

    def changes(self) -> list[Mapping[str, Any]]:
        """Return what the records tell of changes of autonomy, in the order of time."""
        found = [
            event for run in self.guard.runs.list(limit=1_000)
            for event in self.guard.runs.events(run.id) if event.kind == "autonomy.changed"
        ]  # fmt: skip
        return [event.data for event in sorted(found, key=lambda event: (event.at, event.seq))]

    def approve(self) -> None:
        """Say yes to everything that waits."""
        for approval in self.guard.approvals.list(status="pending"):
            self.guard.approvals.decide(approval.id, "approve", by="dana", reason="looked at it")
