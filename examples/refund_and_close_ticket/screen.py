"""How the demo speaks to its watcher: narrow enough for 100 columns, coloured on terminals only."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from .acts import ACTS, YOURS, Act, Case, Notes, asked, short
from .report import BAD, GOOD, Tallies, Tally, table
from .side import Outcome, run_of

WIDTH = 100
SIDES = ("without", "with")
STYLES = {"$ agen": "cyan", "nobody": BAD}
DEFAULT = Path(".agentguard-demo")


class Screen:
    """The watcher's terminal, or wherever the demo's words go."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._console = Console(highlight=False)
        self._console.width = (
            min(self._console.width, WIDTH) if self._console.is_terminal else WIDTH
        )
        self.store = f"sqlite:///{(directory / 'agentguard.db').resolve()}"

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line as it is."""
        self._console.print(Text(text, style), soft_wrap=True)

    def tell(self, text: str, indent: str = "", style: str = "") -> None:
        """Print a paragraph, broken between words."""
        width = self._console.width
        self.say(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent), style)

    def busy(self, doing: str) -> AbstractContextManager[Any]:
        """Show that something is going on, on terminals."""
        terminal = self._console.is_terminal
        return self._console.status(f"[dim]{doing}[/]") if terminal else nullcontext()

    def open(self) -> None:
        """Say what is about to be seen."""
        self.say("refund_and_close_ticket, on bad days: without agentguard and with it", "bold")
        self.tell(
            "An agent (LangGraph, create_agent) pays customers back, tells them so and closes their"
            " tickets. Payments and helpdesk are processes of their own; payments honours"
            " idempotency keys, the helpdesk has never heard of them. The model plays scripts, so no"
            " key and no network are needed. Agent, tools and mishaps are the same on both sides;"
            " agentguard is decorators on the tools (tools.py) and one line around the graph"
            " (worker.py)."
        )

    def begin(self, number: int, act: Act) -> None:
        """Announce an act."""
        self.say()
        self.say(f"{number}  {act.title}", "bold")
        self.tell(act.story, indent="   ", style="dim")

    def end(
        self, act: Act, truth: Tallies, found: Sequence[Tallies], notes: Sequence[Notes]
    ) -> None:
        """Tell what happened in an act, on each side."""
        for case in act.cases:
            self.say(f"   {case.ticket_id}")
            for name, tallies, told in zip(SIDES, found, notes, strict=True):
                tally = tallies.get(case.ticket_id, Tally())
                self._result(name, tally, is_right=tally == truth[case.ticket_id])
                for note in told.get(case.ticket_id, []):
                    self.say(f"              {note}", STYLES.get(note[:6], "dim"))

    def _result(self, name: str, tally: Tally, *, is_right: bool) -> None:
        mark, style = ("✓", GOOD) if is_right else ("✗", BAD)
        line = Text(f"     {name:8} ").append(f"{mark} {tally}", style)
        self._console.print(line, soft_wrap=True)

    def compare(self, cases: Sequence[Case], truth: Tallies, found: Sequence[Tallies]) -> None:
        """Draw what happened in the services beside what was asked for."""
        self.say()
        self.say("What happened, by the journals of the two services", "bold")
        self._console.print(table(cases, truth, *found))
        mails = [sum(tally.mails for tally in side.values()) for side in (truth, *found)]
        self.say("Closing mails: {} asked for, {} without, {} with.".format(*mails))

    def verdict(self, wrong: Sequence[Sequence[str]], broken: Sequence[str], seconds: float) -> int:
        """Say which tickets went wrong on each side; return the demo's exit code."""
        without, guarded = wrong
        self.say(f"Without agentguard, {len(without)} tickets went wrong.", BAD)
        if guarded:
            self.say(f"With agentguard, {', '.join(guarded)} went wrong: please report this.", BAD)
        if broken:
            self.say(f"The record is broken in {', '.join(broken)}: please report this.", BAD)
        if guarded or broken:
            return 1
        whole = f"every run's hash chain is whole. ({seconds:.0f} s)"
        self.say(f"With agentguard, exactly what was asked for happened; {whole}", GOOD)
        return 0

    def go_on(self, approval_id: str) -> None:
        """Show the run in which the worker was killed, and how to look further."""
        run = run_of(ACTS[0].cases[0].ticket_id)
        self.say()
        self.say(f"The run in which workers were killed: agentguard runs show {run}", "bold")
        self.show("runs", "show", run)
        self.say()
        self.say("Go on from here", "bold")
        self.export()
        commands = self._commands(run, approval_id)
        longest = max(len(words) for words, why in commands if why)
        for words, why in commands:
            self.say(f"  {words:{longest}} # {why}" if why else f"  {words}", "cyan")
        self.say(f"All of it is kept in {self.seen(self._directory)} until the next demo.", "dim")

    def _commands(self, run: str, approval_id: str) -> list[tuple[str, str]]:
        guard = self.program()
        where = "" if self._directory == DEFAULT else f" --dir {self.seen(self._directory)}"
        return [
            (f"{guard} runs list", "every run: status, steps, cost"),
            (f"{guard} runs show {run} --step 6", "what did step 6 write?"),
            (f"{guard} effects list", "every write, once"),
            (f"{guard} approvals list", "who waits for you?"),
            (f"{guard} approvals approve {short(approval_id)} --by you --role finance", ""),
            (f"{guard} demo --resume{where}", "a worker goes on"),
        ]

    def yours(self, tally: Tally | None, outcome: Outcome, record: Sequence[str]) -> None:
        """Tell how the ticket stands that was left for the watcher."""
        self.say(f"{YOURS}  {tally or Tally()}", "bold")
        for note in [*(asked(outcome) if outcome.waits else []), *record]:
            self.say(f"        {note}", "dim")
        if outcome.waits:
            approval = short(str(outcome.waits[0]["approval_id"]))
            self.say(
                f"  {self.program()} approvals approve {approval} --by you --role finance", "cyan"
            )

    def show(self, *words: str) -> None:
        """Let agentguard itself print what an operator sees, as wide as the terminal is."""
        self._console.file.flush()
        env = {**os.environ, "AGENTGUARD_STORE": self.store}
        command = [sys.executable, "-m", "agentguard", *words]
        subprocess.run(command, check=True, env=env, stderr=subprocess.STDOUT)

    def export(self) -> None:
        """Say how the watcher's shell comes to the record."""
        store = shlex.quote(f"sqlite:///{self.seen(self._directory / 'agentguard.db')}")
        self.say(f"  export AGENTGUARD_STORE={store}", "cyan")

    def program(self) -> str:
        """Return how the watcher's shell finds agentguard."""
        own = Path(sys.executable).with_name("agentguard")
        found = shutil.which("agentguard")
        if found and own.exists() and Path(found).samefile(own):
            return "agentguard"
        return (
            self.seen(own) if own.exists() else f"{self.seen(Path(sys.executable))} -m agentguard"
        )

    def seen(self, path: Path) -> str:
        """Return *path* as it works in the watcher's shell, which may stand in another directory."""
        here = Path.cwd()
        same = Path(os.environ.get("PWD", here)).resolve() == here
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would leave the .venv
        return shlex.quote(
            str(path.relative_to(here) if same and path.is_relative_to(here) else path)
        )
