"""One story on four runtimes: the same record, in the world everything once, one tree of spans."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from examples.each_runtime.__main__ import compare, main
from examples.each_runtime.desk import CONFIGURATION
from examples.each_runtime.report import unequal, unlike
from examples.each_runtime.story import MISHAPS, RUNTIMES, Played, Runtime, play
from examples.each_runtime.watched import project_of

from agentguard import Guard
from agentguard.model import Event
from tests.collectors import rotel, sink
from tests.collectors.told import STORY, VERIFIED, Judged, complaints, pictured, root_of
from tests.collectors.tree import calls, parts
from tests.support import ROOT

pytestmark = pytest.mark.slow
NAMES = [runtime.name for runtime in RUNTIMES]
TICKETS = [mishap.ticket_id for mishap in MISHAPS]
AMOUNTS = {"T-1001": "20.00", "T-1003": "75.50", "T-1006": "50.00"}
ABSENT = Runtime("absent", "Absent", ("no_such_framework",), "pip install no-such-framework")


@dataclass(frozen=True)
class Seen:
    """What the example has left, said, and told a backend."""

    folder: Path
    code: int
    said: str
    end: sink.Sink

    def events(self, name: str, ticket_id: str) -> Sequence[Event]:
        """Return the record of a ticket's run on one runtime."""
        guard = Guard(f"sqlite:///{self.folder}/{name}/agentguard.db")
        try:
            return guard.runs.events(ticket_id.replace("T", "r"))
        finally:
            guard.close()

    def effects(self, name: str) -> Counter[tuple[Any, ...]]:
        """Count what the services of one runtime did, by their own files."""
        counted: Counter[tuple[Any, ...]] = Counter()
        for service in ("payments", "helpdesk"):
            path = self.folder / name / f"{service}.db"
            with closing(sqlite3.connect(path)) as db:
                counted.update(db.execute("SELECT effect, ticket_id FROM journal").fetchall())
        return counted

    def spans(self, name: str) -> list[sink.Span]:
        """Return the spans of one runtime."""
        return [s for s in self.end.spans if s.source["service.name"] == project_of(name)]

    def verdicts(self, name: str) -> list[Judged]:
        """Return the verdicts of one runtime."""
        return [
            Judged(
                log.span_id,
                str(log.attributes["gen_ai.evaluation.name"]),
                str(log.attributes["gen_ai.evaluation.score.label"]),
            )
            for log in self.end.logs
            if log.source["service.name"] == project_of(name)
        ]

    def counted(self, name: str, metric: str, *labels: str) -> Counter[tuple[str, ...]]:
        """Add up a counter of all workers of one runtime, each by what it has said last."""
        last: dict[Any, tuple[tuple[str, ...], int]] = {}
        for point in self.end.points:
            if point.name == metric and point.source["service.name"] == project_of(name):
                series = (point.source["service.instance.id"], *sorted(point.attributes.items()))
                value = max(last.get(series, ((), 0))[1], int(point.value))
                last[series] = tuple(str(point.attributes[label]) for label in labels), value
        found: Counter[tuple[str, ...]] = Counter()
        for key, value in last.values():
            found[key] += value
        return found


@pytest.fixture(scope="module", name="seen")
def played_once(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Play all four for all tests here, with a collector that hands on to a backend."""
    folder = tmp_path_factory.mktemp("runtimes")
    command = [sys.executable, "-m", "examples.each_runtime", "--dir", str(folder / "kept")]
    with sink.listening() as end, rotel.collector(end.url, folder) as collector:
        done = subprocess.run(
            [*command, "--otlp", collector.http],
            cwd=ROOT, check=False, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert not done.stderr
        seen = Seen(folder / "kept", done.returncode, done.stdout, end)
        assert end.until(lambda _: all(map(partial(has_arrived, seen), NAMES)))
    return seen


def has_arrived(seen: Seen, name: str) -> bool:
    """Tell whether the backend has all of one runtime that it can have."""
    roots = [root_of(seen.spans(name), *key) for key in STORY]
    ended = seen.counted(name, "agentguard.runs").total()
    return all(roots) and len(seen.verdicts(name)) >= len(VERIFIED) and ended >= len(STORY)


@pytest.fixture(scope="module", name="one")
def played_on_plain_python(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the story on plain Python alone, to be spoilt in copies."""
    return play(RUNTIMES[0], tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("ticket_id", TICKETS)
@pytest.mark.parametrize("name", NAMES[1:])
def test_every_runtime_leaves_the_same_record(seen: Seen, name: str, ticket_id: str) -> None:
    """Events, steps, actors, decisions, outcomes and keys are those of plain Python."""

    def told(runtime: str) -> list[tuple[Any, ...]]:
        words = ("tool", "model", "decision", "rule", "outcome", "ruling", "reason", "by", "passed")
        return [
            (e.kind, e.step, e.actor, *(e.data.get(word) for word in words))
            for e in seen.events(runtime, ticket_id)
        ]

    def keys(runtime: str) -> list[Any]:
        found = [e.data.get("key") for e in seen.events(runtime, ticket_id)]
        return [key for key in found if str(key).startswith("ag1_")]

    assert told(name) == told("plain")
    assert keys(name) == keys("plain") != []


@pytest.mark.parametrize("name", NAMES)
def test_everything_happened_once(seen: Seen, name: str) -> None:
    """By the services' journals each ticket had one refund, one comment and one closing mail."""
    once = ("refund.created", "comment.added", "ticket.closed")
    assert seen.effects(name) == Counter([(effect, t) for effect in once for t in TICKETS])


@pytest.mark.parametrize("name", NAMES)
def test_the_mishaps_are_real(seen: Seen, name: str) -> None:
    """Two replies were lost, one owner was lost, and dana decided once, on each runtime."""
    found = [e for ticket_id in TICKETS for e in seen.events(name, ticket_id)]
    doubts = Counter(e.data["reason"] for e in found if e.kind == "effect.in_doubt")
    votes = [(e.data["by"], e.data["decision"]) for e in found if e.kind == "approval.decided"]
    assert doubts == {"error_unclassified": 2, "owner_lost": 1}
    assert votes == [("dana", "approve")]


@pytest.mark.parametrize("name", NAMES)
def test_the_undecorated_tool_is_guarded(seen: Seen, name: str) -> None:
    """A tool that only `agent_run.yaml` speaks of is decided on as the file says, each time."""
    begun = [
        (e.data["tool"], e.data["decision"], e.data["policy"].partition(":")[0])
        for ticket_id in TICKETS
        for e in seen.events(name, ticket_id)
        if e.kind == "step.started" and e.step == 4  # a read that has no budget is never "started"
    ]
    policy = Guard.from_config(CONFIGURATION, store="memory://").settings.version
    assert begun == [("crm-find_tickets", "allow", policy)] * len(TICKETS)


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_sees_what_happened(seen: Seen, name: str) -> None:
    """Through a collector arrive, on each runtime: parts, one span a call, outcomes, verdicts."""
    assert complaints(seen.spans(name), seen.verdicts(name)) == []


@pytest.mark.parametrize("runtime", RUNTIMES, ids=NAMES)
def test_the_published_trees_are_what_arrives(seen: Seen, runtime: Runtime) -> None:
    """The trees in the documents, read back from Phoenix, are those that come through Rotel."""
    page = (ROOT / "docs" / "observability" / "span-trees.md").read_text("utf-8")
    section = page.partition(f"## {runtime.title}\n\n")[2].partition("## ")[0]
    now = "\n".join(pictured(seen.spans(runtime.name), seen.verdicts(runtime.name)))
    assert now.strip() == section.strip(), "python3 run.py phoenix --publish writes it again"


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_sees_an_approval_in_two_parts(seen: Seen, name: str) -> None:
    """The refund waits in one trace and is made in the next, under one approval and one key."""
    first, second = parts(seen.spans(name), "r-1003")
    waited, made = calls(seen.spans(name), first)[-1], calls(seen.spans(name), second)[0]
    assert second.links == (first.span_id,)
    assert second.trace_id != first.trace_id
    for fact in ("approval.id", "idempotency.key_sha256", "run.id"):
        assert waited.attributes[f"agentguard.{fact}"] == made.attributes[f"agentguard.{fact}"]
    told = [each.attributes["agentguard.approval.status"] for each in (waited, made)]
    assert told == ["pending", "approved"]


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_part_is_linked_though_it_could_not_tell(seen: Seen, name: str) -> None:
    """Of a killed worker's part no span can come; the part that goes on names it all the same."""
    (second,) = parts(seen.spans(name), "r-1001")
    assert second.attributes["agentguard.run.part"] == 2
    assert len(second.links) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_call_has_one_id_and_one_span(seen: Seen, name: str) -> None:
    """Within a trace no call of the model's has two spans, whatever instruments the runtime."""
    spans = seen.spans(name)
    found = Counter(
        (call.trace_id, call.attributes["gen_ai.tool.call.id"])
        for key in STORY
        if (root := root_of(spans, *key))
        for call in calls(spans, root)
    )
    assert [key for key, count in found.items() if count > 1] == []
    assert len(found) == sum(len(made) for _, made in STORY.values())


def test_the_runtimes_count_alike(seen: Seen) -> None:
    """Metrics of calls are the same for each runtime, and none has an id in it."""
    labels = ("gen_ai.tool.name", "agentguard.tool.outcome")
    counted = [seen.counted(name, "agentguard.tool_calls", *labels) for name in NAMES]
    assert counted[0]["issue_refund", "ok"] == 2
    assert counted[1:] == counted[:1] * 3
    told = {label for point in seen.end.points for label in point.attributes}
    assert [label for label in told if label.endswith((".id", "sha256"))] == []


def test_the_table_has_a_column_for_each(seen: Seen) -> None:
    """Each line of the table has the same words in four columns, and the verdict says so."""
    table = seen.said.partition("as their records tell them")[2].partition("The 4 timelines")[0]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line[20:].strip()]
    cells = [row[1:] for row in rows if len(row) == 5]
    assert len(cells) > 30
    assert [row for row in cells if len({*row}) > 1] == []
    assert "The 4 timelines are equal, event for event" in seen.said
    assert seen.code == 0


def test_the_output_fits_and_is_plain(seen: Seen) -> None:
    """Nothing is wider than 100 columns but the folder's name, and nothing is coloured."""
    told = seen.said.partition("Look further")[0]
    assert max(map(len, told.splitlines())) <= 100
    assert "\x1b" not in seen.said


def test_a_record_that_differs_is_seen(one: Played) -> None:
    """A missing event, another outcome or another actor is told with the place where it is."""
    run, events = one.runs["T-1006"]
    spoilt = [
        events[:-1],
        [replace(events[0], actor="agent:other"), *events[1:]],
        [
            *events[:5],
            replace(events[5], data={**events[5].data, "outcome": "failed"}),
            *events[6:],
        ],
    ]
    other = replace(one.runtime, title="other")
    complaints = [
        unequal([one, replace(one, runtime=other, runs={**one.runs, "T-1006": (run, each)})])
        for each in spoilt
    ]
    places = [f"event {len(events)}:", "event 1:", "event 6:"]
    assert [len(each) for each in complaints] == [1, 1, 1]
    assert all(place in each[0] for place, each in zip(places, complaints, strict=True))
    assert unequal([one, replace(one, runtime=other)]) == []


def test_a_wrong_outcome_is_seen(one: Played) -> None:
    """A second refund, a ticket nobody named, and a broken record are complained about."""
    tally = one.effects["T-1001"]
    twice = {**one.effects, "T-1001": replace(tally, refunds=(Decimal(20), Decimal(20)))}
    strange = {**one.effects, "T-9999": tally}
    assert unlike([one]) == []
    assert unlike([replace(one, effects=twice)]) == ["plain Python: T-1001 went wrong"]
    assert unlike([replace(one, effects=strange)]) == ["plain Python: T-9999 went wrong"]
    assert unlike([replace(one, broken=["r-1"])]) == ["plain Python: the record of r-1 is broken"]


def test_a_missing_framework_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A runtime that is not installed is named with the way to get it; the others are played."""
    assert compare([ABSENT, RUNTIMES[0]], tmp_path) == 0
    said = capsys.readouterr().out
    assert "Absent is left out: no_such_framework is not there" in said
    assert ABSENT.install in said
    assert "plain Python: on_plain.py" in said


def test_an_unknown_runtime_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is no runtime's is refused with those that are."""
    with pytest.raises(SystemExit) as stopped:
        main(["autogen"])
    assert stopped.value.code == 2
    assert "there is no 'autogen'; there are plain, langgraph" in capsys.readouterr().err


def test_a_strange_directory_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example clears no directory that it has not made."""
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["plain", "--dir", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_is_one_short_file(name: str) -> None:
    """What is special to a runtime stands in one file of at most 60 lines."""
    text = (ROOT / "examples" / "each_runtime" / f"on_{name}.py").read_text("utf-8")
    assert len(text.splitlines()) <= 60
