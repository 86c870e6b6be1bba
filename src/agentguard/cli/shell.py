"""What all commands share: options, the store they open, and how an end becomes an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

from .. import config as configuration
from ..durations import seconds
from ..errors import (
    ApprovalExpired,
    ApprovalRejected,
    ConfigurationError,
    DecisionRefused,
    GuardError,
    PermissionDenied,
    RunHalted,
)
from ..guard import Guard
from ..stores import DEFAULT_URL, is_on_server
from .text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ..protocols import Clock
    from ..stores._pg_about import About

T = TypeVar("T")
Format = Literal["text", "json", "jsonl"]
STORE_VARIABLE = "AGENTGUARD_STORE"
_PREFIX = "sqlite:///"


class Exit(IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    WAITING = 4
    CHECK_FAILED = 5
    INTERRUPTED = 130


CODES = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy or rejected, 4 still waiting,"
    " 5 a check failed, 130 interrupted."
)
_REFUSALS = (ApprovalExpired, ApprovalRejected, DecisionRefused, PermissionDenied, RunHalted)


class Failure(click.ClickException):
    """One sentence for the person, and the exit code for the shell."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Shell:
    """What the common options said.

    Attributes:
        clock: the time, for tests.
    """

    store: str | None = None
    output: Format = "text"
    tenant: str | None = None
    clock: Clock | None = None

    @property
    def url(self) -> str:
        """The store that was named, or the default."""
        return self.store or os.environ.get(STORE_VARIABLE) or DEFAULT_URL

    @property
    def named(self) -> bool:
        """Whether somebody named the store."""
        return bool(self.store or os.environ.get(STORE_VARIABLE))

    @property
    def on_server(self) -> bool:
        """Whether the store is on a database server."""
        return is_on_server(self.url)

    def path(self) -> Path:
        """Return the store's file.

        Raises:
            Failure: the URL names no file.
        """
        if self.url.startswith("memory:"):
            raise Failure(
                "memory:// lives inside one process and ends with it: name a file with --store",
                Exit.USAGE,
            )
        if self.on_server:
            raise Failure("this command is for a SQLite file: name one with --store", Exit.USAGE)
        path = self.url.removeprefix(_PREFIX)
        if not path or path == self.url:
            raise Failure(
                f"{self.url!r} is not a store: write sqlite:///agentguard.db,"
                " sqlite:////var/lib/agentguard.db or postgresql://user@host/database",
                Exit.USAGE,
            )
        return Path(path)

    def existing(self) -> Path:
        """Return the store's file, which no command but a run makes.

        Raises:
            Failure: there is none.
        """
        path = self.path()
        if not path.is_file():
            raise Failure(
                f"there is no store at {path}: a run makes it; name another with --store or"
                f" {STORE_VARIABLE}, or try `agentguard demo`"
            )
        return path

    def about(self) -> About:
        """Return what stands behind the URL of a server.

        Raises:
            Failure: nothing does.
        """
        try:
            from ..stores._pg_about import about

            return about(self.url)
        except ImportError as error:
            raise Failure(
                f"a store on PostgreSQL needs psycopg ({error}): pip install 'agentguard[postgres]'"
            ) from None
        except GuardError as error:
            raise Failure(error.message) from None

    def existing_on_server(self) -> About:
        """Return what stands behind the URL of a server, where no command but a run makes a store.

        Raises:
            Failure: there is none.
        """
        found = self.about()
        if found.schema is None:
            raise Failure(
                f"there is no store at {found.shown}: a run makes it, or `agentguard store migrate`"
            )
        return found

    @contextlib.contextmanager
    def guard(self, config: str | None = None) -> Generator[Guard]:
        """Open the store that exists, with the configuration in a file if one is named, and close it."""
        settings = configuration.load(config) if config else None
        if self.on_server:
            self.existing_on_server()
        else:
            self.existing()
        with busy("opening the store"):
            guard = Guard(self.url, clock=self.clock, config=settings)
        try:
            yield guard
        finally:
            guard.close()


def shell() -> Shell:
    """Return what the common options of this command line said."""
    found: Shell = click.get_current_context().find_root().ensure_object(Shell)
    return found


def found(look_up: Callable[[], T], candidates: Callable[[], Sequence[str]]) -> T:
    """Return what *look_up* finds; not finding it is a failure, not a refusal.

    Raises:
        Failure: naming the candidates where a beginning fits more than one.
    """
    try:
        return look_up()
    except DecisionRefused as error:
        names = sorted(escaped(name) for name in candidates())
        more = f": {', '.join(names)}" if len(names) > 1 else ""
        raise Failure(escaped(error.message) + more) from None


# Options that stand before or after the noun.


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        kept = context.find_root().ensure_object(Shell)
        setattr(kept, parameter.name or "", value)


def _keep_json(context: click.Context, _: click.Parameter, value: Any) -> None:
    if value:
        context.find_root().ensure_object(Shell).output = "json"


def _common() -> list[click.Parameter]:
    return [
        click.Option(
            ["--store"], metavar="URL", expose_value=False, callback=_keep,
            help=f"The store; else {STORE_VARIABLE}, else {DEFAULT_URL}.",
        ),
        click.Option(
            ["-o", "--output"], type=click.Choice(["text", "json", "jsonl"]), expose_value=False,
            callback=_keep, help="How to print data; text by default.",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_keep_json, help="Short for -o json.",
        ),
    ]  # fmt: skip


def _tenant() -> click.Parameter:
    return click.Option(
        ["--tenant"], metavar="NAME", expose_value=False, callback=_keep,
        help="Look only in this tenant.",
    )  # fmt: skip


class PlainCommand(click.Command):
    """A command with the common options, but for `--tenant`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(_common())


class Command(PlainCommand):
    """A command with the common options."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(_tenant())


class Group(click.Group):
    """A noun: a group with the common options."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params += [*_common(), _tenant()]


class Root(Group):
    """The command itself: what a verb returns is the exit code, what it raises is one sentence."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run the command line and end the process."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        options.update(prog_name="agentguard", standalone_mode=False)
        sys.exit(_code_of(lambda: super(Root, self).main(*args, **options)))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; whoever read our output, such as `head`, may have seen enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.DONE


def _code_of(run: Callable[[], Any]) -> int:
    try:
        code = int(run() or 0)
    except (click.Abort, click.ClickException, GuardError) as error:
        return _told(error)
    return code


def _told(error: click.Abort | click.ClickException | GuardError) -> int:
    """Tell the person in a sentence, and return the exit code."""
    if isinstance(error, click.UsageError):
        error.show()
        return Exit.USAGE
    code = Exit.INTERRUPTED
    message = "interrupted"
    if isinstance(error, Failure):
        code, message = error.code, error.message
    elif isinstance(error, (click.ClickException, GuardError)):
        code = Exit.REFUSED if isinstance(error, _REFUSALS) else Exit.FAILED
        message = error.message
    say(f"agentguard: {message}")
    return code


def lasting(_context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Refuse what is no duration before anything is looked up; the callback of such an option."""
    try:
        if text is not None:
            seconds(text, option.opts[0])
    except ConfigurationError as error:
        raise click.UsageError(error.message) from None
    return text


def say(message: str) -> None:
    """Tell the person something; data goes to stdout, this does not."""
    for line in message.split("\n"):
        click.echo(escaped(line), err=True)


def confirmed(what: str, *, dry_run: bool, yes: bool) -> bool:
    """Say what is about to happen; return whether to do it.

    Raises:
        Failure: the person says no, or nobody is there to be asked.
    """
    if dry_run:
        say(f"would {what}; nothing was changed")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Failure(f"this would {what}: say --yes to do it, --dry-run to look only", Exit.USAGE)
    if not click.confirm(escaped(f"This will {what}. Go on?"), err=True):
        raise Failure("nothing was changed")
    return True


@contextlib.contextmanager
def busy(what: str, after: float = 1.0) -> Generator[None]:
    """Show on stderr that something is going on once it takes longer than a second."""
    done = threading.Event()
    watcher = threading.Thread(target=_tick, args=(what, after, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _tick(what: str, after: float, done: threading.Event) -> None:
    seconds, live = 0, sys.stderr.isatty()
    while not done.wait(after):
        seconds += 1
        if live:
            click.echo(f"\r{what} … {seconds} s", err=True, nl=False)
        elif seconds == 1:
            click.echo(f"{what} …", err=True)
    if live and seconds:
        click.echo("\r\x1b[K", err=True, nl=False)


def decided_by(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--by` and `--reason`: who rules says so, and why."""
    command = click.option("--reason", default="", metavar="TEXT", help="Why; it is recorded.")(
        command
    )
    return click.option(
        "--by", required=True, envvar="AGENTGUARD_BY", show_envvar=True, metavar="PERSON",
        help="Who does this.",
    )(command)  # fmt: skip


def careful(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--dry-run` and `--yes`."""
    command = click.option("--yes", "-y", is_flag=True, help="Do it without asking.")(command)
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(command)
