"""The same error as an exception that an agent runtime knows, so that the runtime treats it rightly."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from .errors import GuardError

if TYPE_CHECKING:
    from collections.abc import Generator


def dressed(error: GuardError, base: type[Exception]) -> GuardError:
    """Return *error* as an instance of the runtime's class *base*, too; it stays what it is.

    It speaks with the words of *error*, and as its `args` shows what the model may be told.
    """
    if isinstance(error, base):
        return error
    own: Any = type(error)
    kind: type[GuardError] = _kind(cast("Any", base), own)
    found = kind.__new__(kind)
    found.__dict__.update(vars(error), inner=error)
    found.args = (error.for_model(),)
    found.__cause__, found.__context__ = error.__cause__, error.__context__
    return found.with_traceback(error.__traceback__)


@contextmanager
def undressing() -> Generator[None]:
    """Let refusals that a runtime wraps in exceptions of its own leave this block as themselves."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, GuardError):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from cause.__cause__


class _Dressed(Exception):
    """Speaks with the words of the error inside."""

    inner: GuardError

    def __str__(self) -> str:
        return str(self.inner)

    def __repr__(self) -> str:
        return repr(self.inner)

    def for_model(self) -> str:
        return self.inner.for_model()


@cache
def _kind(base: Any, kind: Any) -> Any:
    return type(kind.__name__, (_Dressed, base, kind), {"__module__": kind.__module__})
