"""Places at which a task stops, by name: what is done at the worst moment is done there."""

from __future__ import annotations

IN_BODY = "in the body, before the effect"
SOMETHING_TO_LOSE = ("Started", "has done begin", IN_BODY)
HOOK_SAID_NO = "the hook says: not_happened"


class Nap(int):
    """What a task yields that sleeps for so many microseconds."""

    def __str__(self) -> str:
        return f"sleeps {self / 1_000_000:g} s"
