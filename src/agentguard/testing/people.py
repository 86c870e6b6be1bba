"""People who decide whatever waits, so that a test does not have to name each call."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Literal

from ..errors import DecisionRefused
from ..protocols import Host

if TYPE_CHECKING:
    from ..guard import Guard
    from ..model import Approval


class Person(Host):
    """Somebody who decides every call that waits, always in the same way.

    Called, it decides what waits at that moment, as people do while an agent is paused. Given to
    `guard.run` as *host*, it decides as soon as a call waits, so that the call goes on at once.

    Args:
        guard: whose approvals.
        decision: what it says.
        by: its name in the record; must not be the agent's nor that of the person it acts for.
        reason: why, for the record and, after a no, for the agent.
    """

    def __init__(
        self, guard: Guard, decision: Literal["approve", "reject"], *, by: str, reason: str
    ) -> None:
        self._guard, self._decision, self._by, self._reason = guard, decision, by, reason

    def __call__(self, *, tool: str | None = None, run_id: str | None = None) -> list[Approval]:
        """Decide every call that waits, and return their approvals; none waits, none returned.

        Args:
            tool: only calls of this tool.
            run_id: only calls of this run.
        """
        return [
            self._decide(approval)
            for approval in self._guard.approvals.list("pending", limit=10_000)
            if tool in (None, approval.tool) and run_id in (None, approval.run_id)
        ]

    def can_pause(self) -> bool:
        """A run with such a person beside it never stops to wait."""
        return True

    def pause(self, approval: Approval) -> None:
        """Decide at once."""
        self._decide(approval)

    def _decide(self, approval: Approval) -> Approval:
        """Say it with as many names as the quorum wants, in the roles that the rule wants."""
        while approval.status == "pending":
            try:
                approval = self._vote(approval)
            except DecisionRefused:
                seen = approval
                approval = self._guard.approvals.show(seen.id, tenant=seen.tenant)
                if approval == seen:
                    raise  # otherwise it was decided meanwhile, in another thread
        return approval

    def _vote(self, approval: Approval) -> Approval:
        voted = {vote.person for vote in approval.decisions}
        names = (f"{self._by} {number}" if number > 1 else self._by for number in count(1))
        return self._guard.approvals.decide(
            approval.id, self._decision, by=next(name for name in names if name not in voted),
            reason=self._reason, roles=approval.roles, tenant=approval.tenant,
        )  # fmt: skip
