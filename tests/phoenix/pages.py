"""Writes docs/observability/: the trees that Phoenix has, and a picture of its page."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from examples.each_runtime.story import Runtime
from examples.each_runtime.watched import project_of

from tests.collectors.sink import Span
from tests.collectors.told import Judged, pictured, root_of
from tests.collectors.tree import calls
from tests.phoenix.server import Phoenix, say
from tests.support import ROOT

FOLDER = ROOT / "docs" / "observability"
PICTURE = "phoenix-langgraph.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WORDS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --force-prefers-reduced-motion --hide-scrollbars --window-size=1600,900 --virtual-time-budget=20000"
)
SHOWN = ("r-1003", 2)
"""The part that the picture shows: a person has said yes, the refund is made and verified."""
HEAD = """\
# The demo run, as Arize Phoenix has it

Written by `python3 run.py phoenix --publish`: every line was read back over the REST API of Phoenix
{version}, after `examples/each_runtime` had played on it. In `r-1006` two replies were lost, and the
effects found again. `r-1003` waited for a person, whose yes its second part used. The first part of
`r-1001` ended with its worker, killed before it could tell; the second goes on where it was.

A line is a span: its name, its kind in Phoenix, how it came out, and what there is to say. A
verdict is an annotation of the span above it. On every CI run the same trees, line for line, arrive
through Rotel; there the second parts are linked to the first, which Phoenix does not keep.
[How to set this up](../observability.md).
"""


class Seen(Protocol):
    """What Phoenix has of one runtime."""

    @property
    def runtime(self) -> Runtime:
        """Which one it is."""
        ...

    @property
    def spans(self) -> list[Span]:
        """Its spans."""
        ...

    @property
    def verdicts(self) -> list[Judged]:
        """The annotations of its spans."""
        ...


def publish(phoenix: Phoenix, seen: Sequence[Seen]) -> None:
    """Write the trees of all runtimes, and a picture of one."""
    FOLDER.mkdir(exist_ok=True)
    page = FOLDER / "span-trees.md"
    page.write_text("\n".join(lines(seen)), encoding="utf-8")
    say(f"written: {page.relative_to(ROOT)}")
    for each in seen:
        root = root_of(each.spans, *SHOWN)
        if each.runtime.name == "langgraph" and root is not None:
            photograph(phoenix, each.runtime.name, root, calls(each.spans, root)[0])


def lines(seen: Sequence[Seen]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD.format(version=version())
    for each in seen:
        yield f"## {each.runtime.title}\n"
        yield from pictured(each.spans, each.verdicts)
    yield "## The page\n"
    yield f"The second part of `r-1003` on LangGraph.\n\n![A trace in Phoenix]({PICTURE})\n"


def version() -> str:
    """Read which Phoenix the lock names."""
    lock = (ROOT / "requirements" / "phoenix.lock").read_text("utf-8")
    return lock.partition("arize-phoenix==")[2].split()[0]


def browser() -> str | None:
    """Find a browser that can take a picture."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def photograph(phoenix: Phoenix, runtime: str, root: Span, refund: Span) -> None:
    """Take a picture of a trace's page with the refund before it, if there is a browser."""
    program = browser()
    if program is None:
        say(f"no picture: none of {', '.join(BROWSERS)} is there")
        return
    project = project_of(runtime)
    page = f"{phoenix.url}/projects/{phoenix.project(project)}/traces/{root.trace_id}"
    page += f"?selectedSpanNodeId={phoenix.node(project, refund.span_id)}"
    with tempfile.TemporaryDirectory(prefix="agentguard-browser-") as folder:
        taken = Path(folder) / PICTURE
        words = [program, *WORDS.split(), f"--user-data-dir={folder}/profile"]
        subprocess.run(
            [*words, f"--screenshot={taken}", page], check=True, capture_output=True, timeout=120
        )
        shutil.copyfile(taken, FOLDER / PICTURE)
    say(f"written: {(FOLDER / PICTURE).relative_to(ROOT)}")
