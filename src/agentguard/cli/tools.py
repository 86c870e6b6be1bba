"""Tools that a command is to run or check: imported from where the shell stands, and only on its word."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..declaration import declaration_of
from ..tool import Stage
from .shell import Failure, busy

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
    if not module or (sign and not attribute) or _is_path(name):
        raise click.UsageError(
            f"--tools {name}: write {NAMED}, such as billing.tools for billing/tools.py"
        )
    found = _imported(module, name)
    try:
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except Exception as error:
        raise Failure(f"--tools {name}: {type(error).__name__}: {error}") from error
    if not attribute:
        return [each for each in vars(found).values() if _is_tool(each) or also(each)]
    if isinstance(found, dict):
        return list(found.values())
    return list(found) if isinstance(found, (list, tuple, set, frozenset)) else [found]


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.startswith(".") or name.endswith(".py")


def _imported(module: str, name: str) -> Any:
    """Import a module; whatever it prints is no data of ours, and its end is not ours.

    Raises:
        Failure: it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr), busy(f"importing {module}"):
            return importlib.import_module(module)
    except SystemExit as error:
        raise Failure(
            f"--tools {name}: importing {module} ends the process{_where(error)}: put what runs it"
            ' under if __name__ == "__main__":'
        ) from error
    except ModuleNotFoundError as error:
        mend = (
            "run where it can be imported, or set PYTHONPATH" if _is_missing(error, module) else ""
        )
        where = f": {mend}" if mend else _where(error)
        raise Failure(f"--tools {name}: {error}{where}") from error
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise Failure(f"--tools {name}: {told}{_where(error)}") from error


def _is_missing(error: ModuleNotFoundError, module: str) -> bool:
    """Return whether what is missing is the module itself, and not what it imports."""
    return error.name is not None and f"{module}.".startswith(f"{error.name}.")


def _where(error: BaseException) -> str:
    """Return the last line that an error went through, of the user's own if there is one."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (importlib.__file__, __file__) and frame.filename[:1] != "<"
    ]  # fmt: skip
    own = [frame for frame in frames if _is_own(Path(frame.filename))]
    return next((f" ({f.filename}:{f.lineno})" for f in reversed(own or frames)), "")


def _is_own(path: Path) -> bool:
    return path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts
