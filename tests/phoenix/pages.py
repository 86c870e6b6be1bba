"""Writes docs/observability/: the trees that Phoenix has, and a picture of its page."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from examples.each_runtime.story import Runtime
from examples.each_runtime.watched import project_of

from tests.collectors.sink import Span
from tests.collectors.told import STORY, root_of
from tests.collectors.tree import drawn
from tests.phoenix.server import Phoenix, say
from tests.support import ROOT

FOLDER = ROOT / "docs" / "observability"
PICTURE = "phoenix-langgraph.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WORDS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --hide-scrollbars --window-size=1500,850 --virtual-time-budget=20000"
)
SHOWN = ("r-1003", 2)
"""The part that the picture shows: a person has said yes, the refund is made and verified."""
HEAD = """\
# The demo run, as Arize Phoenix has it

Written by `python3 run.py phoenix --publish`: every line was read back over the REST API of Phoenix
{version}, after `examples/each_runtime` had played on it. In `r-1006` two replies were lost, and the
effects found again. `r-1003` waited for a person, whose yes its second part used. The first part of
`r-1001` ended with its worker, killed before it could tell; the second goes on where it was.

A line is a span: its name, its kind in Phoenix, how it came out, and what there is to say. Below a
tree stand the annotations of its spans: the verdicts. [How to set this up](../observability.md).
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
    def annotations(self) -> list[Any]:
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
            photograph(phoenix, each.runtime.name, root)


def lines(seen: Sequence[Seen]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD.format(version=version())
    for each in seen:
        yield f"## {each.runtime.title}\n"
        for run_id, part in STORY:
            root = root_of(each.spans, run_id, part)
            assert root is not None
            yield f"```text\n{run_id}, part {part}"
            yield from trees(each, root)
            yield "```\n"
    if (FOLDER / PICTURE).exists() or browser():
        yield "## The page\n"
        yield f"The second part of `r-1003` on LangGraph.\n\n![A trace in Phoenix]({PICTURE})"
    yield ""


def trees(seen: Seen, root: Span) -> Iterator[str]:
    """Draw a part, and its annotations."""
    yield from drawn(seen.spans, root)
    names = {span.span_id: span for span in seen.spans if span.trace_id == root.trace_id}
    for each in seen.annotations:
        if span := names.get(each["span_id"]):
            result = " ".join(f"{key} {value}" for key, value in said(each["result"]))
            yield f"annotation of {span.name}: {each['name']}, by {each['annotator_kind']}, {result}"


def said(result: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an annotation says."""
    return ((key, value) for key, value in result.items() if value is not None)


def version() -> str:
    """Read which Phoenix the lock names."""
    lock = (ROOT / "requirements" / "phoenix.lock").read_text("utf-8")
    return lock.partition("arize-phoenix==")[2].split()[0]


def browser() -> str | None:
    """Find a browser that can take a picture."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def photograph(phoenix: Phoenix, runtime: str, root: Span) -> None:
    """Take a picture of a trace's page, if there is a browser."""
    program = browser()
    if program is None:
        say(f"no picture: none of {', '.join(BROWSERS)} is there")
        return
    page = f"{phoenix.url}/projects/{phoenix.project(project_of(runtime))}/traces/{root.trace_id}"
    with tempfile.TemporaryDirectory(prefix="agentguard-browser-") as folder:
        taken = Path(folder) / PICTURE
        words = [program, *WORDS.split(), f"--user-data-dir={folder}/profile"]
        subprocess.run(
            [*words, f"--screenshot={taken}", page], check=True, capture_output=True, timeout=120
        )
        shutil.copyfile(taken, FOLDER / PICTURE)
    say(f"written: {(FOLDER / PICTURE).relative_to(ROOT)}")
