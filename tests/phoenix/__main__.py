"""The demo run on each runtime, seen by Arize Phoenix: `python3 run.py phoenix`.

    python3 run.py phoenix [RUNTIME …] [--publish] [--stay]

Phoenix is installed in an environment of its own (`.venv-phoenix`, about 850 MB) and started on loopback
with nothing in it. Each runtime plays the story of `examples/each_runtime`; what Phoenix has of it is
read back over its REST API and held against what happened. Minutes: it is for the night.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.each_runtime.story import RUNTIMES, Runtime, play
from examples.each_runtime.watched import project_of
from examples.refund_and_close_ticket.side import DemoBroken

from tests.collectors.sink import Span
from tests.collectors.told import STORY, VERIFIED, Judged, complaints, root_of
from tests.phoenix.pages import publish
from tests.phoenix.server import Phoenix, PhoenixBroken, environment, running, say

AT_ONCE = 2
ARRIVAL = 60.0
"""Seconds in which everything has to be there; verdicts wait for their spans up to 15."""
KINDS = {"invoke_workflow": "CHAIN", "execute_tool": "TOOL"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What Phoenix has of one runtime.

    Attributes:
        annotations: of its spans, as the API tells them, and `verdicts` what they say.
        wrong: what differs from what happened.
    """

    runtime: Runtime
    spans: list[Span]
    annotations: list[Any]
    verdicts: list[Judged]
    wrong: list[str]


def main(arguments: Sequence[str]) -> int:
    """Play, read back, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="run.py phoenix", description=__doc__.partition("\n")[0])
    names = [each.name for each in RUNTIMES]
    parser.add_argument("runtime", nargs="*", choices=[*names, []], help="all of them by default")
    parser.add_argument("--publish", action="store_true", help="write docs/observability/")
    parser.add_argument("--stay", action="store_true", help="leave Phoenix on until Ctrl-C")
    asked = parser.parse_args(arguments)
    wanted = [each for each in RUNTIMES if each.name in (asked.runtime or names)]
    try:
        with running(environment()) as phoenix:
            return look(phoenix, wanted, asked)
    except (DemoBroken, PhoenixBroken) as error:
        say(str(error))
        return 1


def look(phoenix: Phoenix, wanted: Sequence[Runtime], asked: argparse.Namespace) -> int:
    """Play on each runtime and tell what Phoenix has of it."""
    say(f"Phoenix is on at {phoenix.url}; playing on {len(wanted)} runtimes")
    with (
        tempfile.TemporaryDirectory(prefix="agentguard-phoenix-") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        seen = [*pool.map(lambda each: played(phoenix, each, Path(folder)), wanted)]
    for each in seen:
        sys.stdout.write(f"{told(each)}\n")
        sys.stdout.writelines(f"  {complaint}\n" for complaint in each.wrong)
    wrong = any(each.wrong for each in seen)
    if asked.publish and not wrong:
        publish(phoenix, seen)
    if asked.stay:
        say(f"Phoenix stays on at {phoenix.url}; Ctrl-C ends it")
        stay()
    return int(wrong)


def played(phoenix: Phoenix, runtime: Runtime, folder: Path) -> Seen:
    """Play the story on one runtime and read back what Phoenix has of it."""
    play(runtime, folder, ["--phoenix", phoenix.url])
    project = project_of(runtime.name)
    spans = until(lambda: phoenix.spans(project), is_whole)
    ids = [span.span_id for span in spans]
    annotations = until(
        lambda: phoenix.annotations(project, ids), lambda a: len(a) >= len(VERIFIED)
    )
    judged = [Judged(a["span_id"], a["name"], a["result"]["label"]) for a in annotations]
    return Seen(
        runtime,
        spans,
        annotations,
        judged,
        [*complaints(spans, judged), *unlike(spans, annotations)],
    )


def is_whole(spans: list[Span]) -> bool:
    """Tell whether every part has arrived that can."""
    return all(root_of(spans, *key) for key in STORY)


def unlike(spans: list[Span], annotations: list[Any]) -> list[str]:
    """List spans whose kind Phoenix has understood otherwise, and verdicts that are not a rule's."""
    named = [(span, str(span.attributes.get("gen_ai.operation.name"))) for span in spans]
    wrong = [
        f"{span.name} is {kind}, not {KINDS[operation]}"
        for span, operation in named
        if operation in KINDS
        and (kind := span.attributes["openinference.span.kind"]) != KINDS[operation]
    ]
    return wrong + [
        f"{each['name']} is by {each['annotator_kind']}, not CODE"
        for each in annotations
        if each["annotator_kind"] != "CODE"
    ]


def told(seen: Seen) -> str:
    """Say in a line what Phoenix has of a runtime."""
    tools = sum(s.attributes.get("gen_ai.operation.name") == "execute_tool" for s in seen.spans)
    counts = f"{len(seen.spans)} spans, {tools} of tools, {len(seen.annotations)} annotations"
    return f"{seen.runtime.title:16} {counts:42} {'DIFFERS' if seen.wrong else 'as it happened'}"


def until(ask: Callable[[], list[Any]], there: Callable[[list[Any]], bool]) -> list[Any]:
    """Ask until what is wanted is there, or for as long as one waits; return the last answer."""
    ends = time.monotonic() + ARRIVAL
    while not there(found := asked_softly(ask)) and time.monotonic() < ends:
        time.sleep(0.5)  # nothing tells when Phoenix has put them in
    return found


def asked_softly(ask: Callable[[], list[Any]]) -> list[Any]:
    """Ask; a project that is not there yet has nothing in it."""
    try:
        return ask()
    except OSError as error:
        say(f"not yet: {error}")
        return []


def stay() -> None:
    """Wait for Ctrl-C."""
    try:
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        say("ending")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
