"""Play one story on each runtime, then hold the records against each other.

`python -m examples.each_runtime [plain] [langgraph] [semantic_kernel] [llamaindex]`; with
`--otlp http://127.0.0.1:4318` or `--phoenix http://127.0.0.1:6006` a backend sees it, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from agentguard import GuardError

from ..refund_and_close_ticket.demo import clear
from ..refund_and_close_ticket.report import BAD
from ..refund_and_close_ticket.screen import Screen
from ..refund_and_close_ticket.side import DemoBroken
from ..refund_and_close_ticket.world import WorldBroken
from .report import journals, timelines, verdict
from .story import MISHAPS, RUNTIMES, Played, Runtime, play

DEFAULT = Path(".agentguard/each_runtime")
AT_ONCE = 2  # frameworks take seconds to load


def main(words: Sequence[str] | None = None) -> int:
    """Play; 0 only if the records are equal and what happened is what was asked for."""
    arguments = _parser().parse_args(words)
    try:
        return compare(arguments.runtime, arguments.dir, watch(arguments))
    except KeyboardInterrupt:
        return 130
    except (DemoBroken, GuardError, OSError, WorldBroken) as error:
        print(f"each_runtime: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    told = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="each_runtime", description=told)
    told = f"any of {', '.join(each.name for each in RUNTIMES)} (default: all)"
    parser.add_argument("runtime", nargs="*", type=_named, default=RUNTIMES, help=told)
    told = "where everything is kept, made anew each time (default: %(default)s)"
    parser.add_argument("--dir", type=Path, default=DEFAULT, metavar="DIRECTORY", help=told)
    told = "send telemetry to a collector that takes OTLP over HTTP there"
    parser.add_argument("--otlp", default="", metavar="URL", help=told)
    told = "send traces, and verdicts as annotations, to an Arize Phoenix there"
    parser.add_argument("--phoenix", default="", metavar="URL", help=told)
    return parser


def watch(arguments: argparse.Namespace) -> list[str]:
    """Return the words by which workers are told where telemetry goes."""
    asked = (("--otlp", arguments.otlp), ("--phoenix", arguments.phoenix))
    return [word for option, url in asked if url for word in (option, url)]


def _named(name: str) -> Runtime:
    known = {runtime.name: runtime for runtime in RUNTIMES}
    if name not in known:
        raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(known)}")
    return known[name]


def compare(wanted: Sequence[Runtime], directory: Path, watch: Sequence[str] = ()) -> int:
    """Play on each runtime that is there, and tell what records and journals say."""
    clear(directory)
    screen = Screen(directory)
    screen.say("refund_and_close_ticket on each runtime", "bold")
    screen.tell(
        "Tools, services, agent_run.yaml, the script of the model and what goes wrong are the same"
        " for all. The agent is another each time: on_plain.py, on_langgraph.py and so on."
    )
    played = list(
        _played(screen, dict.fromkeys(wanted), partial(play, directory=directory, watch=watch))
    )
    if not played:
        raise DemoBroken("none of these runtimes is installed")
    timelines(screen, played)
    journals(screen, played)
    code = verdict(screen, played)
    store = f"sqlite:///{directory / played[-1].runtime.name / 'agentguard.db'}"
    screen.say(f"\nLook further: agentguard --store {store} runs show r-1001", "dim")
    return code


def _played(
    screen: Screen, wanted: Iterable[Runtime], playing: Callable[[Runtime], Played]
) -> Iterator[Played]:
    """Play side by side, and tell one after the other."""
    there = []
    for runtime in wanted:
        if missing := runtime.missing():
            screen.say(f"\n{runtime.title} is left out: {', '.join(missing)} is not there", BAD)
            screen.say(f"  {runtime.install}")
        else:
            there.append(runtime)
    with ThreadPoolExecutor(AT_ONCE) as pool, screen.busy("playing"):
        for played in pool.map(playing, there):
            screen.say(f"\n{played.runtime.title}: on_{played.runtime.name}.py", "bold")
            for mishap in MISHAPS:
                screen.say(f"  {mishap.ticket_id}  {mishap.story}")
                for note in played.notes[mishap.ticket_id]:
                    screen.say(f"          {note}", "cyan" if note.startswith("$") else "dim")
            yield played


if __name__ == "__main__":
    sys.exit(main())
