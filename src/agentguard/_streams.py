"""A stream whose steps run in one context of their own, whoever asks for the next one.

A generator runs in the context of whoever asks for the next step. What is set there, such as the
run, would leak into the caller's code between two steps, and could not be taken back by whoever
closes the stream.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

T = TypeVar("T")
_END = object()


def in_own_context(steps: Generator[T]) -> Generator[T]:
    """Yield what *steps* yields; each step runs in one copy of the first caller's context."""
    context = contextvars.copy_context()
    try:
        while (step := context.run(next, steps, cast("T", _END))) is not _END:
            yield step
    finally:
        context.run(steps.close)


async def ain_own_context(steps: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Like `in_own_context`, on an event loop."""

    async def following() -> T:
        return await anext(steps, cast("T", _END))

    async def close() -> None:
        await steps.aclose()

    context = contextvars.copy_context()
    try:
        while (step := await asyncio.create_task(following(), context=context)) is not _END:
            yield step
    finally:
        await asyncio.create_task(close(), context=context)
