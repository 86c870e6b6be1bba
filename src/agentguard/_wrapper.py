"""The one wrapper around a guarded function, which looks like the function; loaded with the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from collections.abc import Callable


class _Copies:
    """Copying a guarded function gives the same guarded function: runtimes deepcopy tools."""

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _memo: object) -> Any:
        return self


class GuardedMethod(_Copies, wrapt.BoundFunctionWrapper):  # type: ignore[type-arg] # not generic in wrapt 1
    """A guarded function bound to its instance."""

    @property
    def __agentguard__(self) -> Any:
        """What is declared on the function."""
        return self._self_parent.__agentguard__


class Guarded(_Copies, wrapt.FunctionWrapper):  # type: ignore[type-arg] # not generic in wrapt 1
    """A function with agentguard's decorators. To everybody else it looks like the function.

    Args:
        function: what is wrapped.
        declaration: what the decorators declare.
        enter: runs the guarded call, as wrapt calls it.
    """

    __bound_function_wrapper__ = GuardedMethod

    def __init__(
        self, function: Callable[..., Any], declaration: Any, enter: Callable[..., Any]
    ) -> None:
        self._self_declaration = declaration
        super().__init__(function, enter)

    @property
    def __agentguard__(self) -> Any:
        """What is declared on the function."""
        return self._self_declaration
