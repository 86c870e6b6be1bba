"""`agentguard doctor`: whether this machine and this store can keep the promises."""

from __future__ import annotations

import fcntl
import os
import platform
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ..errors import GuardError
from ..guard import Guard
from ..ledger import circuits, heads, queries
from ..stores._files import file_system
from ..stores.schema import VERSION
from .loading import now
from .output import Line, sheet, show_list
from .shell import CODES, Command, Exit, Failure, busy, say, shell
from .store import integrity_of, schema_of, size_of
from .text import count, escaped, instant, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Standing = Literal["ok", "note", "failed"]
_PACKAGES = (
    "agentguard", "pydantic", "click", "rich", "opentelemetry-api", "opentelemetry-sdk",
    "langgraph", "langchain", "langgraph-prebuilt",
)  # fmt: skip
_OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
_RECENT = 100
"""So many of the newest runs have their hash chains checked."""
_SLACK_S = 5.0


@dataclass(frozen=True)
class Check:
    """What one look found."""

    name: str
    standing: Standing
    said: str


@click.command("doctor", cls=Command, epilog=f"JSON keys: check, standing, said. {CODES}")
def doctor() -> int:
    """Check python, packages, store, locks, clock and telemetry. Exit 5 if a check fails."""
    with busy("checking"):
        checks = [check for look in _LOOKS for check in look()]
    if shell().output == "text":
        sheet([_line(check) for check in checks])
    else:
        show_list(checks, _json, ())
    failed = [check.name for check in checks if check.standing == "failed"]
    if failed:
        say(f"{count(len(failed), 'check')} failed: {', '.join(failed)}")
    return Exit.CHECK_FAILED if failed else Exit.DONE


def _json(check: Check) -> dict[str, str]:
    return {"check": check.name, "standing": check.standing, "said": check.said}


def _line(check: Check) -> Line:
    state = "" if check.standing == "ok" else check.standing
    return Line(check.name, f"{check.standing.ljust(6)}  {escaped(check.said)}", state)


def _ok(name: str, said: str) -> Check:
    return Check(name, "ok", said)


def _if(good: bool, name: str, said: str, wrong: str) -> Check:  # noqa: FBT001 - reads as a sentence
    return _ok(name, said) if good else Check(name, "failed", f"{said}: {wrong}")


def _python() -> Iterator[Check]:
    said = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    yield _if(sys.version_info >= (3, 11), "python", said, "agentguard needs 3.11 or newer")
    found = [f"{name} {version}" for name in _PACKAGES if (version := _version(name))]
    yield _ok("packages", ", ".join(found))
    yield _if(
        sqlite3.sqlite_version_info >= _OLDEST_SQLITE, "sqlite", sqlite3.sqlite_version,
        "the store needs 3.37 or newer",
    )  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _name() -> Iterator[Check]:
    """Another distribution installs the same import name and the same command."""
    others = sorted({_title(found) for found in metadata.distributions() if _takes_our_name(found)})
    if others:
        yield Check(
            "name", "failed",
            f"{', '.join(others)} installs the import name or the command `agentguard` too, and whichever"
            " came last overwrote the other: uninstall both, then install this one again",
        )  # fmt: skip
    else:
        yield _ok(
            "name", f"imported from {Path(__file__).parents[1]}; nobody else installs this name"
        )


def _title(found: metadata.Distribution) -> str:
    return f"{found.metadata['Name']} {found.version}"


def _takes_our_name(found: metadata.Distribution) -> bool:
    if (found.metadata["Name"] or "").lower().replace("_", "-") == "agentguard":
        return False
    command = any(
        e.group == "console_scripts" and e.name == "agentguard" for e in found.entry_points
    )
    return command or any(file.parts[:1] == ("agentguard",) for file in found.files or ())


def _store() -> Iterator[Check]:
    if shell().on_server:
        yield from _server()
        return
    path = shell().path()
    if not path.is_file():
        missing = f"there is none at {path} yet"
        standing: Standing = "failed" if shell().named else "note"
        yield Check("store", standing, f"{missing}; the first run makes it")
    else:
        yield from _opened(path)
    yield from _place(path)


def _server() -> Iterator[Check]:
    from . import server

    try:
        found = [Check(name, standing, said) for name, standing, said in server.looks()]
        yield from found
        if not any(check.name == "store" for check in found):
            with shell().guard() as guard:
                yield from _record(guard)
                said = guard.store.check()
                yield _if(said == "ok", "files", f"the server says {said}", "see its log")
    except (GuardError, Failure) as error:
        yield Check("store", "failed", error.message)


def _opened(path: Path) -> Iterator[Check]:
    try:
        schema = schema_of(path)
        guard = Guard(shell().url, clock=shell().clock)
    except (GuardError, Failure) as error:
        yield Check("store", "failed", error.message)
        return
    try:
        yield _ok("store", f"{path} opens, schema {schema} of {VERSION}, {size_of(path):,} bytes")
        said = integrity_of(path)
        yield _if(
            said == "ok", "file", f"SQLite's own check says {said}", "restore it from a backup"
        )
        yield from _record(guard)
    except GuardError as error:  # the file is damaged where it was read
        yield Check("record", "failed", error.message)
    finally:
        guard.close()


def _record(guard: Guard) -> Iterator[Check]:
    hurt = guard.store.read(queries.damaged)
    yield (
        Check("rows", "failed", f"{hurt[0]} ({count(len(hurt), 'row')} in all): restore a backup")
        if hurt
        else _ok("rows", "every run, effect, approval and vote is as it was written")
    )
    newest = guard.runs.list(limit=_RECENT)
    broken = [said for run in newest if (said := guard.runs.verify(run.id, tenant=run.tenant))]
    whole = f"the hash chains of the newest {count(len(newest), 'run')} are whole"
    yield Check("record", "failed", "; ".join(broken)) if broken else _ok("record", whole)
    yield _log(guard)
    yield from _circuits(guard)
    last = max((run.updated_at for run in newest), default=None)
    current = now(guard)
    behind = (last - current).total_seconds() if last else 0.0
    wrong = f"it is {span(behind)} behind the record's newest event" if last else ""
    yield _if(behind < _SLACK_S, "clock", instant(current), wrong)


def _circuits(guard: Guard) -> Iterator[Check]:
    found = guard.store.read(circuits.opened)
    if found:
        names = ", ".join(f"{row['tool']} of {row['tenant']} ({row['state']})" for row in found)
        yield Check("circuits", "note", f"left alone because they fail: {names}")


def _log(guard: Guard) -> Check:
    """Hold the tenants' logs against runs, events and effects."""
    found = guard.store.read(heads.all_contradictions)
    if found:
        said = f"{found[0]} ({count(len(found), 'contradiction')} in all): restore a backup"
        return Check("log", "failed", said)
    return _ok("log", "runs, events, effects and the log of each tenant fit together")


def _place(path: Path) -> Iterator[Check]:
    folder = _nearest(path.absolute().parent)
    kind = file_system(folder) or "not told by this system"
    if not os.access(folder, os.W_OK):
        yield Check(
            "folder", "failed", f"{folder} cannot be written: give its rights or another path"
        )
        return
    yield _ok("folder", f"{folder} can be written, file system {kind}")
    yield _if(_locks(folder), "locks", "file locks", "they do not exclude each other here")


def _nearest(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _locks(folder: Path) -> bool:
    """Take the same lock twice, which must not work."""
    named = tempfile.NamedTemporaryFile
    with named(dir=folder) as first, Path(first.name).open("rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _telemetry() -> Iterator[Check]:
    from opentelemetry import trace

    provider = type(trace.get_tracer_provider()).__name__
    sdk = _version("opentelemetry-sdk")
    targets = [name for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
               if os.environ.get(name)]  # fmt: skip
    if provider == "ProxyTracerProvider":
        said = "no provider in this process; spans go where your application's provider sends them"
    else:
        said = f"provider {provider}"
    known = f"; sdk {sdk}" if sdk else "; no sdk installed: pip install 'agentguard[otel]'"
    yield Check(
        "telemetry",
        "ok" if sdk else "note",
        said + known + "".join(f"; {t} is set" for t in targets),
    )


_LOOKS: tuple[Callable[[], Iterator[Check]], ...] = (_python, _name, _store, _telemetry)
