"""Bounded waiting between attempts, with full jitter; tenacity's arithmetic, our driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Retry


class Backoff:
    """Counts the attempts of one call and says how long to wait before the next one."""

    __slots__ = ("_attempts", "_retry")

    def __init__(self, retry: Retry) -> None:
        self._retry, self._attempts = retry, 1

    def next(self, asked: float | None) -> float | None:
        """Return seconds to wait before the next attempt, or None when there is none left.

        Args:
            asked: what the backend asked for (Retry-After); it is waited at least that long, and
                not at all if that is longer than the longest wait.
        """
        if not self.has_next(asked):
            return None
        wait = max(self._jittered(), asked or 0.0)
        self._attempts += 1
        return wait

    def has_next(self, asked: float | None) -> bool:
        """Return whether `next` will say how long to wait."""
        return self._attempts < self._retry.attempts and (asked or 0.0) <= self._retry.max_wait

    def _jittered(self) -> float:
        from tenacity import RetryCallState, wait_random_exponential

        # tenacity reads nothing but the number of the attempt.
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = self._attempts
        return wait_random_exponential(self._retry.wait, self._retry.max_wait)(state)
