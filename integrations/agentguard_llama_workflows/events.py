"""The event that wakes a waiting step. Saved contexts name its class, so it does not move."""

from __future__ import annotations

from workflows.events import Event


class ApprovalDecided(Event):
    """Somebody has decided; the step that waits for it looks at the store, not at this.

    Attributes:
        approval_id: the approval.
    """

    approval_id: str
