"""What all commands share: options, stores that are missing, hostile text, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agentguard import Guard
from agentguard.cli import main, shell
from agentguard.cli.shell import Shell
from tests.cli import world
from tests.cli.conftest import Call

READING = [
    ["runs", "list"], ["runs", "show", "r-1"], ["runs", "show", "r-1", "--step", "1"],
    ["runs", "show", "r-1", "--writes"], ["runs", "watch", "r-1", "--timeout", "0"],
    ["approvals", "list"], ["approvals", "show", "ap"], ["approvals", "watch", "--timeout", "0"],
    ["effects", "list"], ["effects", "show", "ag"], ["store", "info"], ["kill"],
]  # fmt: skip
CHANGING = [
    ["runs", "cancel", "r-1", "--by", "x", "--reason", "x", "--yes"],
    ["approvals", "approve", "ap", "--by", "x"],
    ["approvals", "reject", "ap", "--by", "x", "--reason", "x"],
    ["approvals", "edit", "ap", "--by", "x", "--set", "a=1"],
    ["effects", "resolve", "ag", "failed", "--by", "x", "--reason", "x"],
    ["kill", "--all", "--by", "x", "--reason", "x", "--yes"],
    ["store", "migrate", "--yes"],
]


@pytest.mark.parametrize("words", READING + CHANGING, ids=" ".join)
def test_a_missing_store_is_one_sentence_and_stays_missing(
    tmp_path: Path, clock: world.Clock, words: list[str]
) -> None:
    """No command but a run makes a store; a store that is not there is exit 1."""
    ended = world.call(tmp_path / "none" / "a.db", clock, *words)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("agentguard: there is no store at ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://x", "a.db", "sqlite:///", "memory://"])
def test_what_names_no_store_file_is_a_usage_error(url: str) -> None:
    """A URL that is no store, or lives in another process only, is exit 2."""
    ended = CliRunner().invoke(main, ["runs", "list", "--store", url])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("agentguard: ")


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 9, b""])
def test_a_foreign_file_is_one_sentence(tmp_path: Path, clock: world.Clock, content: bytes) -> None:
    """A file of something else is named as such and stays as it is; an empty one has no runs."""
    path = tmp_path / "a.db"
    path.write_bytes(content)
    ended = world.call(path, clock, "store", "info")
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "words",
    [
        ["--store", "URL", "-o", "jsonl", "runs", "list"],
        ["runs", "--store", "URL", "-o", "jsonl", "list"],
        ["runs", "list", "--store", "URL", "-o", "jsonl"],
        ["-o", "jsonl", "runs", "--store", "URL", "list"],
    ],
)
def test_common_options_stand_before_or_after_the_noun(store: Path, words: list[str]) -> None:
    """`--store` and `-o` mean the same wherever they stand."""
    url = f"sqlite:///{store}"
    ended = CliRunner().invoke(main, [url if word == "URL" else word for word in words])
    assert len(ended.stdout.splitlines()) == 4


def test_the_last_word_on_an_option_counts(run: Call) -> None:
    """An option nearer to the verb overrides one before the noun."""
    assert run("-o", "json", "runs", "list", "-o", "jsonl").stdout.count("\n") == 4


def test_the_store_can_come_from_the_environment(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AGENTGUARD_STORE names the store unless `--store` does."""
    monkeypatch.setenv("AGENTGUARD_STORE", f"sqlite:///{store}")
    assert CliRunner().invoke(main, ["runs", "list"]).exit_code == 0
    other = ["runs", "list", "--store", "sqlite:///none.db"]
    assert CliRunner().invoke(main, other).exit_code == 1


EVERYTHING = [
    ["runs", "list"], ["runs", "show", "broken"], ["runs", "watch", "broken"],
    ["runs", "show", "r-1"], ["runs", "watch", "r-1", "--timeout", "0"],
    *(["runs", "show", "r-1", "--step", str(number)] for number in world.STEPS.values()),
    ["approvals", "list", "--status", "all"], ["effects", "list"], ["kill"], ["doctor"],
]  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
@pytest.mark.parametrize("words", EVERYTHING, ids=" ".join)
def test_hostile_text_cannot_steer_a_terminal(
    run: Call, store: Path, clock: world.Clock, words: list[str], form: str
) -> None:
    """Whatever an agent put into the record, nothing unseen reaches stdout or stderr."""
    guard = world.guard_of(store, clock)
    guard.kill(tool=world.EVIL, by=world.EVIL, reason=world.EVIL)
    guard.close()
    ended = run(*words, "-o", form)
    assert (ended.stdout + ended.stderr) != ""
    assert world.unseen(ended.stdout + ended.stderr) == set()


def test_hostile_text_is_shown_escaped(run: Call) -> None:
    """A hidden character is visible as its escape, so nobody approves what they cannot see."""
    approvals = json.loads(run("approvals", "list", "--json").stdout)
    name = next(a["id"] for a in approvals if a["tool"] == "refund")
    text = run("approvals", "show", name).stdout
    assert r"pay\u001b[2J\x9b31m\u202egnp.exe\u200b\u2066\U000e0041\u0007\r\nok" in text
    assert (
        approvals[0]["arguments"].get("note") == world.EVIL
        or approvals[1]["arguments"]["note"] == world.EVIL
    )


def test_a_hostile_name_that_is_not_found_is_escaped(run: Call) -> None:
    """An error message shows the name that was asked for, escaped."""
    assert world.unseen(run("runs", "show", world.EVIL).stderr) == set()


def test_a_store_that_cannot_be_opened_is_one_sentence(
    run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of agentguard become a sentence and an exit code, never a traceback."""

    def fail(*_: object, **__: object) -> Guard:
        return Guard("sqlite:////proc/nothing/a.db")

    monkeypatch.setattr(shell, "Guard", fail)
    ended = run("runs", "list")
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert "Traceback" not in ended.stderr


def test_an_interrupted_command_is_130(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with exit 130."""

    def interrupt(*_: object, **__: object) -> Guard:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "Guard", interrupt)
    ended = run("runs", "list")
    assert (ended.exit_code, ended.stdout) == (130, "")


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "shaw"],
        ["runs", "list", "--limit", "0"],
        ["approvals", "approve"],
        ["-o", "xml", "runs", "list"],
    ],
)
def test_wrong_words_are_2(run: Call, words: list[str]) -> None:
    """What the command line does not know is exit 2, told on stderr."""
    ended = run(*words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Usage:" in ended.stderr


def test_a_reader_that_has_seen_enough_is_no_failure(store: Path) -> None:
    """`agentguard runs list | head -0` ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "agentguard", "--store", f"sqlite:///{store}", "runs", "list"]
    ended = subprocess.run(words, check=False, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_module_runs_like_the_command(store: Path) -> None:
    """`python -m agentguard` hands the exit code on and calls itself agentguard."""
    words = [sys.executable, "-m", "agentguard", "runs", "show", "nobody"]
    environment = os.environ | {"AGENTGUARD_STORE": f"sqlite:///{store}"}
    ended = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("agentguard: there is no run 'nobody'")


def test_without_a_terminal_rich_is_not_imported(store: Path) -> None:
    """A pipe gets its columns without the library that draws on terminals."""
    script = (
        "import sys\nfrom agentguard.cli import main\n"
        f"try: main(['runs', 'show', 'r-1', '--store', 'sqlite:///{store}'])\n"
        "except SystemExit as end: print(end.code, 'rich' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert ended.stdout.splitlines()[-1] == "0 False"


def test_the_command_tells_its_version_and_exit_codes(run: Call) -> None:
    """`--version` prints one line; `--help` lists nouns and exit codes."""
    assert run("--version").stdout.startswith("agentguard 0.")
    said = " ".join(run("--help").stdout.split())
    assert shell.CODES in said
    assert all(noun in said for noun in ("runs", "approvals", "effects", "policy", "kill", "store"))


def test_something_slow_is_told_once_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Work that takes longer than allowed is named on stderr, once in a log."""
    seen: list[str] = []

    class Done:
        """Three periods pass before the work ends."""

        turns = iter([False, False, True])

        def wait(self, after: float) -> bool:
            """Return whether the work has ended."""
            seen.append(f"waited {after}")
            return next(self.turns)

    shell._tick("reading", 1.0, Done())  # type: ignore[arg-type]
    assert capsys.readouterr().err == "reading …\n"
    assert len(seen) == 3


def test_what_was_found_out_quickly_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Work that ends within a second says nothing."""
    with shell.busy("reading"):
        pass
    assert capsys.readouterr().err == ""


def test_every_command_explains_itself() -> None:
    """Each command, option and noun has a help text."""
    mute: list[str] = []

    def walk(command: click.Command, path: str) -> None:
        options = [p for p in command.params if isinstance(p, click.Option)]
        mute.extend(f"{path} {option.name}" for option in options if not option.help)
        mute.extend([] if command.help else [path])
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")

    walk(main, "agentguard")
    assert mute == []


def test_a_shell_without_options_asks_the_default_store() -> None:
    """Without option and variable the store of the working folder is meant."""
    assert str(Shell().path()) == ".agentguard/agentguard.db"
