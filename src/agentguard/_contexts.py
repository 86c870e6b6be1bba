"""What is set for a block or a stream is seen inside of it, and nowhere else.

A generator runs in the context of whoever asks for the next step. What is set there, such as the
run, would leak into the caller's code between two steps, and could not be taken back by whoever
closes the stream. So a stream's steps get a context of their own.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

T = TypeVar("T")
_END = object()


@contextlib.contextmanager
def setting(variable: contextvars.ContextVar[T], value: T) -> Generator[T]:
    """Set *variable* to *value* for a block."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


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
    from asyncio import create_task

    async def following() -> T:
        return await anext(steps, cast("T", _END))

    async def close() -> None:
        await steps.aclose()

    context = contextvars.copy_context()
    try:
        while (step := await create_task(following(), context=context)) is not _END:
            yield step
    finally:
        await create_task(close(), context=context)
