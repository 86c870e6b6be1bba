"""Tools that a command is to run or check: imported from where the shell stands, and only on its word."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..declaration import declaration_of
from ..tool import Stage
from .shell import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

NAMED = "MODULE[:ATTRIBUTE]"


def tools_named(names: tuple[str, ...]) -> list[Any]:
    """Return the tools that *names* stand for; a module alone stands for all its guarded functions.

    Raises:
        Failure: it cannot be imported, or holds no such attribute.
    """
    return things_named(names)


def things_named(
    names: tuple[str, ...], also: Callable[[Any], bool] = lambda _thing: False
) -> list[Any]:
    """Return what *names* stand for, each once; of a module its tools, and what is *also* meant.

    Raises:
        Failure: it cannot be imported, or holds no such attribute.
    """
    found = [thing for name in names for thing in _tools(name, also)]
    return list({id(thing): thing for thing in found}.values())


def _is_tool(thing: Any) -> bool:
    """An undo can be decorated, too, and is none: it has no contract of its own."""
    declaration = declaration_of(thing)
    return declaration is not None and Stage.CONTRACT in declaration.policies


def _tools(name: str, also: Callable[[Any], bool]) -> list[Any]:
    module, sign, attribute = name.partition(":")
    if not module or (sign and not attribute):
        raise click.UsageError(f"--tools {name}: write {NAMED}, such as billing.tools")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except Exception as error:
        raise Failure(f"--tools {name}: {type(error).__name__}: {error}") from error
    if not attribute:
        return [each for each in vars(found).values() if _is_tool(each) or also(each)]
    return list(found) if isinstance(found, (list, tuple, set, frozenset)) else [found]
