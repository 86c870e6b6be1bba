"""Tools that a command is to run or check: imported from where the shell stands, and only on its word."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from ..declaration import declaration_of
from ..tool import Stage
from .shell import Failure

NAMED = "MODULE[:ATTRIBUTE]"


def tools_named(names: tuple[str, ...]) -> list[Any]:
    """Return the tools that *names* stand for; a module alone stands for all its guarded functions.

    Raises:
        Failure: it cannot be imported, or holds no such attribute.
    """
    return [tool for name in names for tool in _tools(name)]


def _is_tool(thing: Any) -> bool:
    """An undo can be decorated, too, and is none: it has no contract of its own."""
    declaration = declaration_of(thing)
    return declaration is not None and Stage.CONTRACT in declaration.policies


def _tools(name: str) -> list[Any]:
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
        return [thing for thing in vars(found).values() if _is_tool(thing)]
    return list(found) if isinstance(found, (list, tuple, set, frozenset)) else [found]
