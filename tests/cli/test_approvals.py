"""`agentguard approvals`: what waits, and what people say about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentguard.cli import watching
from agentguard.cli.shapes import ApprovalJson
from tests.cli import world
from tests.cli.conftest import Call

FINANCE = ("--by", "carl", "--role", "finance")


def waiting(run: Call, tool: str = "refund") -> dict[str, Any]:
    """Return the approval of *tool* that waits."""
    found: list[dict[str, Any]] = json.loads(run("approvals", "list", "--json").stdout)
    return next(approval for approval in found if approval["tool"] == tool)


def test_the_inbox_lists_what_waits(run: Call) -> None:
    """`approvals list` shows pending calls only, with their arguments and the rule."""
    lines = run("approvals", "list").stdout.splitlines()
    assert lines[0].split() == [
        "approval",
        "status",
        "what",
        "rule",
        "for",
        "run",
        "asked",
        "expires",
    ]
    assert [line.split()[1] for line in lines[1:]] == ["pending", "pending"]


def test_the_inbox_as_json_has_the_documented_keys(run: Call) -> None:
    """`approvals list` as json and jsonl gives the documented keys."""
    found = json.loads(run("approvals", "list", "-o", "json").stdout)
    assert {tuple(item) for item in found} == {tuple(ApprovalJson.__annotations__)}
    lines = run("approvals", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == found


@pytest.mark.parametrize(
    ("status", "count"), [("all", 5), ("used", 2), ("rejected", 1), ("expired", 0)]
)
def test_decided_ones_can_be_listed(run: Call, status: str, count: int) -> None:
    """`--status` chooses by what was decided."""
    found = json.loads(run("approvals", "list", "--status", status, "--json").stdout)
    assert len(found) == count


def test_an_empty_inbox_tells_the_next_command(tmp_path: Path, clock: world.Clock) -> None:
    """An inbox without calls says so on stderr, and how to see decided ones."""
    world.guard_of(tmp_path / "new.db", clock).close()
    ended = world.call(tmp_path / "new.db", clock, "approvals", "list")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "nothing waits for a person" in ended.stderr


def test_what_will_run_stands_first(run: Call) -> None:
    """`approvals show` begins with the tool and its arguments, the ruled amount on top."""
    lines = run("approvals", "show", waiting(run)["id"]).stdout.splitlines()
    assert lines[0].split() == ["will", "run", "refund"]
    assert [line.split()[0] for line in lines[1:4]] == ["amount_usd", "note", "ticket_id"]
    assert lines[1].split()[-1] == '"99"'


def test_who_asked_why_and_until_when_is_shown(run: Call) -> None:
    """Rule, requester, person it is done for, payload hash and expiry are labelled lines."""
    approval = waiting(run)
    text = run("approvals", "show", approval["id"]).stdout
    for part in (
        "the rule: amount_usd > 50", "support on behalf of dana@shop", approval["payload_hash"],
        "2026-03-01 05:03:23 UTC (in 2 h)", "a person with the role finance, not support nor dana@shop",
    ):  # fmt: skip
        assert part in text


def test_both_commands_are_printed_ready_to_run(run: Call) -> None:
    """The printed commands name the approval, the role and the generation that was shown."""
    approval = waiting(run)
    lines = run("approvals", "show", approval["id"]).stdout.splitlines()
    said = {line[:12].strip(): line[12:].strip() for line in lines if line.startswith("to ")}
    name = approval["id"][:12]
    assert said["to approve"] == (
        f"agentguard approvals approve {name} --by YOU --role finance --generation 1"
    )
    assert said["to reject"].startswith(f"agentguard approvals reject {name} ")
    words = said["to approve"].replace("YOU", "carl").split()[1:]
    assert run(*words).exit_code == 0


def test_what_cannot_be_undone_is_shown(run: Call) -> None:
    """A call that its tool declares irreversible says so to whoever decides."""
    approval = waiting(run, "send_mail")
    assert "\nundo" in run("approvals", "show", approval["id"]).stdout
    assert "irreversible" in run("approvals", "show", approval["id"]).stdout
    assert (
        json.loads(run("approvals", "show", approval["id"], "--json").stdout)["undo"]
        == "irreversible"
    )


def test_an_approval_as_json_is_one_object(run: Call) -> None:
    """`approvals show` as json and jsonl prints the same object."""
    name = waiting(run)["id"]
    found = json.loads(run("approvals", "show", name, "-o", "json").stdout)
    assert tuple(found) == tuple(ApprovalJson.__annotations__)
    line = run("approvals", "show", name, "-o", "jsonl").stdout
    assert (line.count("\n"), json.loads(line)) == (1, found)


def test_an_ambiguous_beginning_names_the_candidates(run: Call) -> None:
    """A beginning that fits several approvals decides nothing."""
    ended = run("approvals", "approve", "ap_", *FINANCE)
    assert ended.exit_code == 1
    assert ended.stderr.count("ap_") == 6


def test_an_approval_is_a_decision(run: Call) -> None:
    """`approvals approve` says what will start, and when."""
    name = waiting(run)["id"]
    ended = run("approvals", "approve", name[:10], *FINANCE, "--reason", "ok")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == f"{name} is approved: refund starts when run r-1 goes on\n"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_decision_as_json_is_the_approval(run: Call, form: str) -> None:
    """Deciding with -o json prints the approval as it stands now."""
    ended = run("approvals", "approve", waiting(run)["id"], *FINANCE, "-o", form)
    assert json.loads(ended.stdout)["status"] == "approved"


def test_a_second_yes_is_needed_where_two_people_decide(run: Call) -> None:
    """With a quorum of two, the first yes says that one more is needed."""
    name = waiting(run, "send_mail")["id"]
    assert "it needs 1 more person" in run("approvals", "approve", name, "--by", "carl").stderr
    assert "is approved" in run("approvals", "approve", name, "--by", "bob").stderr


@pytest.mark.parametrize(
    "words",
    [
        ["approve", "--by", "carl"],
        ["approve", "--by", "dana@shop", "--role", "finance"],
        ["approve", "--by", "support", "--role", "finance"],
        ["approve", *FINANCE, "--generation", "2"],
        ["edit", *FINANCE, "--set", "ticket_id=1"],
        ["edit", *FINANCE, "--set", "nothing=1"],
    ],
)
def test_whoever_may_not_decide_gets_3(run: Call, words: list[str]) -> None:
    """A decision that policy does not allow is exit 3, one sentence, and changes nothing."""
    verb, *rest = words
    before = waiting(run)
    ended = run("approvals", verb, before["id"], *rest)
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (3, "", 1)
    assert waiting(run) == before


def test_a_rejection_needs_a_reason(run: Call) -> None:
    """`approvals reject` without `--reason` is a usage error."""
    name = waiting(run)["id"]
    assert run("approvals", "reject", name, *FINANCE).exit_code == 2
    ended = run("approvals", "reject", name, *FINANCE, "--reason", "no")
    assert ended.stderr == f"{name} is rejected: refund will not run\n"


def test_a_decision_needs_a_person(run: Call) -> None:
    """Without `--by` or AGENTGUARD_BY nobody has decided."""
    name = waiting(run)["id"]
    assert run("approvals", "approve", name, "--role", "finance").exit_code == 2
    ended = run("approvals", "approve", name, "--role", "finance", env={"AGENTGUARD_BY": "carl"})
    assert ended.exit_code == 0


def test_an_edit_asks_somebody_else(run: Call) -> None:
    """An edit begins a new generation, marks what was changed, and keeps its types."""
    name = waiting(run)["id"]
    ended = run("approvals", "edit", name, *FINANCE, "--set", 'amount_usd="60"')
    assert "generation 2 now waits for somebody else's yes" in ended.stderr
    assert '"60"   (edited)' in run("approvals", "show", name).stdout
    assert run("approvals", "approve", name, *FINANCE).exit_code == 3


@pytest.mark.parametrize("change", ["amount_usd", "amount_usd=sixty", "=1", "amount_usd=NaN"])
def test_an_edit_that_is_no_json_is_a_usage_error(run: Call, change: str) -> None:
    """`--set` wants NAME=JSON and says what was wrong."""
    ended = run("approvals", "edit", waiting(run)["id"], *FINANCE, "--set", change)
    assert ended.exit_code == 2
    assert "--set" in ended.stderr


def test_an_expired_approval_is_refused(run: Call, clock: world.Clock) -> None:
    """After its time, an approval takes no decision: exit 3."""
    name = waiting(run)["id"]
    clock.tick(3 * 3600)
    assert run("approvals", "approve", name, *FINANCE).exit_code == 3


# Watching.


def test_watching_one_waits_for_its_answer(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """`approvals watch ID` ends with 0 once it is approved."""
    name = waiting(run)["id"]

    def decide(_seconds: float) -> None:
        run("approvals", "approve", name, *FINANCE)

    monkeypatch.setattr(watching, "sleep", decide)
    ended = run("approvals", "watch", name)
    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"{name}  approved by carl  refund ")


def test_watching_a_rejected_one_is_3(run: Call) -> None:
    """`approvals watch ID` of a rejected call is exit 3."""
    found = json.loads(run("approvals", "list", "--status", "rejected", "--json").stdout)
    assert run("approvals", "watch", found[0]["id"]).exit_code == 3


def test_watching_one_that_still_waits_is_4(run: Call) -> None:
    """`approvals watch ID --timeout` ends with 4 when nobody has answered."""
    ended = run("approvals", "watch", waiting(run)["id"], "--timeout", "0", "-o", "json")
    assert ended.exit_code == 4
    assert json.loads(ended.stdout)["status"] == "pending"


def test_watching_the_inbox_tells_what_comes_and_goes(
    run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`approvals watch` prints what waits, then each decision and edit as it is made."""
    refund, mail = waiting(run)["id"], waiting(run, "send_mail")["id"]
    turns = iter(
        [
            ("edit", refund, *FINANCE, "--set", 'amount_usd="60"'),
            ("reject", refund, "--by", "bob", "--role", "finance", "--reason", "no"),
            ("reject", mail, "--by", "bob", "--reason", "no"),
        ]
    )
    seconds = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(watching, "clock", lambda: next(seconds))
    monkeypatch.setattr(watching, "sleep", lambda _: run("approvals", *next(turns)))
    ended = run("approvals", "watch", "--timeout", "4")
    assert ended.exit_code == 0
    assert [line.split("  ")[:2] for line in ended.stdout.splitlines()[2:]] == [
        [refund, "pending"],
        [refund, "rejected by bob"],
        [mail, "rejected by bob"],
    ]


def test_watching_an_inbox_that_still_waits_is_4(run: Call) -> None:
    """`approvals watch --timeout` ends with 4 while something waits, a line for each."""
    ended = run("approvals", "watch", "--timeout", "0", "-o", "jsonl")
    assert ended.exit_code == 4
    assert len(ended.stdout.splitlines()) == 2
