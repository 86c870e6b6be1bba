"""The demo: tickets on which something goes wrong, each lived through with and without agentguard.

`python3 run.py demo`, or `python -m examples.refund_and_close_ticket`. It needs no key, no account
and no network beyond this machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from agentguard import GuardError

from .acts import ACTS, YOURS
from .helpdesk import TICKETS
from .report import Tallies, happened, right, wrong
from .screen import DEFAULT, Screen
from .side import DemoBroken, Side
from .world import WorldBroken

T = TypeVar("T")
MARK = "made-by-agentguard-demo"  # only a directory with this file in it is ever cleared
CASES = [case for act in ACTS for case in act.cases]
WAITING = 4  # agentguard's exit code for what still waits for people


def main(words: Sequence[str] | None = None) -> int:
    """Play the demo; 0 only if what happened with agentguard is what was asked for."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.slo:
            return service_level(arguments.dir)
        return (resume if arguments.resume else play)(arguments.dir)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _fail(f"{error.filename or 'the machine'}: {error.strerror or error}")
    except (DemoBroken, GuardError, WorldBroken) as error:
        return _fail(str(error))


def _fail(sentence: str) -> int:
    print(f"agentguard demo: {sentence}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentguard demo", description=(__doc__ or "").splitlines()[0]
    )
    told = "where everything is kept, made anew each time (default: %(default)s)"
    parser.add_argument("--dir", type=Path, default=DEFAULT, metavar="DIRECTORY", help=told)
    told = f"let a worker take up ticket {YOURS} again, on which you have decided"
    parser.add_argument("--resume", action="store_true", help=told)
    told = "instead: payments go down, a service level takes autonomy away and gives it back"
    parser.add_argument("--slo", action="store_true", help=told)
    return parser


def service_level(directory: Path) -> int:
    """Play the other demo: autonomy that is taken away, and comes back."""
    from . import slo_demo

    clear(directory)
    return slo_demo.play(directory, Screen(directory))


def play(directory: Path) -> int:
    """Play all acts on both sides, then hold the sides against what was asked for."""
    began = time.monotonic()
    clear(directory)
    screen = Screen(directory)
    screen.open()
    with ExitStack() as undo:
        sides = (Side(directory / "without"), Side(directory / "with", screen.store))
        with screen.busy("starting both worlds"):
            on_both(sides, undo.enter_context)
        for number, act in enumerate(ACTS, 1):
            screen.begin(number, act)
            with screen.busy("playing it on both sides"):
                notes = on_both(sides, act.play)
            truth, found = truth_of(), [happened(side.world) for side in sides]
            screen.end(act, truth, found, notes)
        broken, left = sides[1].broken_records(), sides[1].waiting()
    screen.compare(CASES, truth, found)
    code = screen.verdict([wrong(truth, each) for each in found], broken, time.monotonic() - began)
    screen.go_on(left)
    return code


def resume(directory: Path) -> int:
    """Let a worker take up the ticket that was left for the watcher."""
    screen = Screen(directory)
    if not (directory / MARK).exists():
        raise DemoBroken(f"there is no demo in {directory}; play it first, without --resume")
    with Side(directory / "with", screen.store) as side:
        outcome = side.work(YOURS)
        screen.yours(happened(side.world).get(YOURS), outcome, side.record(YOURS))
    return WAITING if outcome.waits else 0


def clear(directory: Path) -> None:
    """Make *directory* anew, if it is the demo's to clear.

    Raises:
        DemoBroken: something else is in it.
    """
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise DemoBroken(f"{directory} is not empty and not the demo's; name another by --dir")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()


def on_both(sides: Sequence[Side], do: Callable[[Side], T]) -> list[T]:
    """Do the same on both sides at once."""
    with ThreadPoolExecutor(len(sides)) as pool:
        return list(pool.map(do, sides))


def truth_of() -> Tallies:
    """Return what should have happened to every ticket, by what the tickets ask for."""
    tickets = json.loads(TICKETS.read_text("utf-8"))
    amounts = {ticket["id"]: Decimal(ticket["amount_usd"]) for ticket in tickets}
    return {case.ticket_id: right(case, amounts) for case in CASES}


if __name__ == "__main__":
    sys.exit(main())
