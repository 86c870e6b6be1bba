"""The demo as its watcher sees it: played once, in a directory that is not the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from examples.refund_and_close_ticket.acts import Case
from examples.refund_and_close_ticket.demo import CASES, truth_of
from examples.refund_and_close_ticket.helpdesk import TICKETS
from examples.refund_and_close_ticket.report import Tally, money, wrong
from examples.refund_and_close_ticket.screen import Screen

from agentguard import Guard
from tests.support import ROOT

pytestmark = pytest.mark.slow
AMOUNTS = {each["id"]: each["amount_usd"] for each in json.loads(TICKETS.read_text("utf-8"))}
PAID_TWICE = ["T-1001", "T-1002", "T-1005", "T-1006"]
VERDICTS: list[tuple[list[str], list[str]]] = [([], []), (["T-1002"], []), ([], ["r-1003"])]
Effects = Counter[tuple[str, str]]


@dataclass(frozen=True)
class Played:
    """A demo that has been played."""

    folder: Path
    code: int
    said: str

    def effects(self, side: str) -> Effects:
        """Count what a side's services did, by their own files."""
        counted: Effects = Counter()
        for service in ("payments", "helpdesk"):
            path = self.folder / ".agentguard-demo" / side / f"{service}.db"
            with closing(sqlite3.connect(path)) as db:
                counted.update(db.execute("SELECT effect, ticket_id FROM journal").fetchall())
        return counted

    def row(self, ticket_id: str) -> list[str]:
        """Return a ticket's line of the table, without its story."""
        (line,) = re.findall(rf"^{ticket_id}  \S.*$", self.said, re.MULTILINE)
        return re.split(r"\s{2,}", line.strip())[2:]

    def commands(self) -> list[str]:
        """List the commands that were printed to go on with."""
        ending = self.said.partition("Go on from here")[2]
        return [line.partition("#")[0].strip() for line in ending.splitlines()[1:-1]]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the demo in *folder*, as `agentguard demo` does."""
    command = [sys.executable, "-m", "agentguard", "demo", *words]
    env = {**os.environ, "PWD": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module", name="played")
def played_once(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the demo for all tests here."""
    folder = tmp_path_factory.mktemp("watcher")
    done = run(folder)
    assert not done.stderr
    return Played(folder, done.returncode, done.stdout)


@pytest.fixture(name="own")
def with_a_copy(played: Played, tmp_path: Path) -> Played:
    """Give a copy of what the demo left, to decide on."""
    shutil.copytree(played.folder, tmp_path, dirs_exist_ok=True)
    return Played(tmp_path, played.code, played.said)


def test_guarded_services_did_what_was_asked_for(played: Played) -> None:
    """With agentguard, no ticket has an effect more or less than is right for it."""
    right: Effects = Counter()
    for case in CASES:
        right["refund.created", case.ticket_id] += case.refunds
        right["comment.added", case.ticket_id] += case.comments
        right["ticket.closed", case.ticket_id] += case.mails
    assert played.effects("with") == +right
    assert played.code == 0


def test_the_mishaps_are_real(played: Played) -> None:
    """Without agentguard, the same mishaps pay twice, pay unasked and never stop commenting."""
    effects = played.effects("without")
    assert [t for t in sorted(AMOUNTS) if effects["refund.created", t] > 1] == PAID_TWICE
    unasked = ("T-1009", "T-1011", "T-9999")
    assert [effects["refund.created", ticket_id] for ticket_id in unasked] == [1, 1, 1]
    assert effects["comment.added", "T-1001"] == effects["comment.added", "T-1006"] == 2
    assert effects["comment.added", "T-1004"] > 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.ticket_id)
def test_the_table_is_what_the_journals_say(played: Played, case: Case) -> None:
    """Each line shows the refunds and comments that the services' own files hold."""
    ticket_id = case.ticket_id
    without, guarded = played.effects("without"), played.effects("with")
    paid = [each["refund.created", ticket_id] for each in (without, guarded)]
    said = [each["comment.added", ticket_id] for each in (without, guarded)]
    usd = Decimal(AMOUNTS.get(ticket_id, "5000.00"))
    shown = [money([usd] * number).replace("nothing", "0") for number in (case.refunds, *paid)]
    assert played.row(ticket_id) == [*shown, *map(str, (case.comments, *said))]


def test_the_output_fits_and_is_plain(played: Played) -> None:
    """What the demo tells is no wider than 100 columns, and nothing is coloured off terminals."""
    told = played.said.partition("The run in which workers were killed")[0]
    assert max(map(len, told.splitlines())) <= 100
    assert "\x1b" not in played.said


def test_the_readme_shows_what_is_printed(played: Played) -> None:
    """Each line of the table in the README is a line that the demo has printed."""
    shown = re.findall(r"^T-\d{4}  .*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert shown
    assert set(shown) <= {line.rstrip() for line in played.said.splitlines()}


def test_a_worker_was_killed_between_effect_and_record(played: Played) -> None:
    """The record of T-1001 tells of two effects whose owner died, both found to have happened."""
    store = f"sqlite:///{played.folder}/.agentguard-demo/agentguard.db"
    guard = Guard(store)
    events = guard.runs.events("r-1001")
    guard.close()
    doubts = [e.data["reason"] for e in events if e.kind == "effect.in_doubt"]
    rulings = [(e.actor, e.data["ruling"]) for e in events if e.kind == "effect.resolved"]
    assert doubts == ["owner_lost"] * 2
    assert rulings == [("system:reconcile", "happened")] * 2


def test_the_printed_commands_work(own: Played) -> None:
    """Pasted into a shell one after the other, the commands approve the refund and see it paid."""
    commands = own.commands()
    assert [c for c in commands if "--step 6" in c]
    script = "set -e\n" + "\n".join(commands)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=own.folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "is approved: issue_refund starts when run r-1011 goes on" in done.stderr
    assert "T-1011  paid 50.01 · 1 comment · 1 closing mail" in done.stdout
    assert own.effects("with")["refund.created", "T-1011"] == 1


def test_step_6_is_explained(own: Played) -> None:
    """The printed command for step 6 names the comment that the killed worker wrote."""
    (command,) = [c for c in own.commands() if "--step 6" in c]
    env = {**os.environ, "AGENTGUARD_STORE": "sqlite:///.agentguard-demo/agentguard.db"}
    done = subprocess.run(
        shlex.split(command), cwd=own.folder, env=env, check=True, capture_output=True, text=True
    )
    assert "comment_ticket" in done.stdout
    assert "We refund 20.00 USD." in done.stdout


def test_undecided_it_still_waits(own: Played) -> None:
    """Taken up again without a decision, the refund waits, which is exit code 4."""
    done = run(own.folder, "--resume")
    assert done.returncode == 4
    assert "waits for a person" in done.stdout
    assert own.effects("with")["refund.created", "T-1011"] == 0


def test_a_strange_directory_is_left_alone(tmp_path: Path) -> None:
    """The demo clears no directory that it has not made."""
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run(tmp_path, "--dir", str(tmp_path))
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_wrong_outcome_is_seen() -> None:
    """A refund too many, too few, or for a ticket nobody named is not what was asked for."""
    truth = truth_of()
    twenty = truth["T-1001"].refunds
    twice = {**truth, "T-1001": truth["T-1001"] + Tally(refunds=twenty)}
    never = {**truth, "T-1001": Tally(comments=1, mails=1)}
    strange = {**truth, "T-0000": Tally(refunds=twenty)}
    found = [wrong(truth, each) for each in (truth, twice, never, strange)]
    assert found == [[], ["T-1001"], ["T-1001"], ["T-0000"]]


def test_a_wrong_outcome_fails_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ticket that went wrong with agentguard, or a broken record, is named and exits with 1."""
    screen = Screen(tmp_path)
    codes = [screen.verdict([["T-1"], found], broken, 1.0) for found, broken in VERDICTS]
    assert codes == [0, 1, 1]
    said = capsys.readouterr().out
    assert "With agentguard, T-1002 went wrong" in said
    assert "The record is broken in r-1003" in said
