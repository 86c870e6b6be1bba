"""`agentguard doctor`: whether this machine and this store can keep the promises."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentguard.cli import main
from tests.cli import world
from tests.cli.conftest import Call

CHECKS = [
    "python", "packages", "sqlite", "name", "store", "file", "rows", "record", "log", "clock", "folder",
    "locks", "telemetry",
]  # fmt: skip


def standing(run: Call, name: str) -> tuple[str, str]:
    """Return how one check stands and what it said."""
    found = json.loads(run("doctor", "--json").stdout)
    return next((item["standing"], item["said"]) for item in found if item["check"] == name)


@pytest.fixture(name="alone", autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out whatever else is installed where the tests run."""
    monkeypatch.setattr(metadata, "distributions", lambda: iter(()))


def test_a_healthy_machine_passes(run: Call) -> None:
    """Every check of a good store is ok, exit 0."""
    ended = run("doctor")
    assert ended.exit_code == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == CHECKS
    assert "schema 3 of 3" in ended.stdout


def test_the_checks_as_json_have_the_documented_keys(run: Call) -> None:
    """`doctor` as json is a list, as jsonl a line for each check."""
    found = json.loads(run("doctor", "-o", "json").stdout)
    assert [[*item] for item in found] == [["check", "standing", "said"]] * len(CHECKS)
    assert len(run("doctor", "-o", "jsonl").stdout.splitlines()) == len(CHECKS)


def foreign(folder: Path) -> metadata.Distribution:
    """Make what an installed distribution with our import name leaves behind."""
    info = folder / "agentguard47-2.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agentguard47\nVersion: 2.0.0\n")
    (info / "RECORD").write_text("agentguard/__init__.py,,\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nagentguard = agentguard.cli:main\n")
    return metadata.PathDistribution(info)


def test_a_distribution_that_takes_our_name_is_named(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another distribution with our import name or command is found and fails the check."""
    other = foreign(tmp_path)
    monkeypatch.setattr(metadata, "distributions", lambda: iter([other]))
    ended = run("doctor")
    assert ended.exit_code == 5
    assert "agentguard47 2.0.0 installs the import name or the command" in ended.stdout
    assert ended.stderr == "1 check failed: name\n"


def test_we_do_not_take_our_own_name(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own distribution is not mistaken for a foreign one."""
    own = metadata.distribution("agentguard")
    monkeypatch.setattr(metadata, "distributions", lambda: iter([own]))
    assert standing(run, "name")[0] == "ok"


def test_a_store_that_is_not_there_yet_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a store in the working folder the other checks decide, and none is made."""
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, ["doctor"])
    assert ended.exit_code == 0
    assert "there is none at .agentguard/agentguard.db yet" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_named_store_that_is_missing_fails(tmp_path: Path, clock: world.Clock) -> None:
    """A store that somebody named has to be there."""
    assert world.call(tmp_path / "a.db", clock, "doctor").exit_code == 5


def test_a_broken_file_fails(run: Call, store: Path) -> None:
    """A file that SQLite finds damaged, or cannot open, fails without a traceback."""
    content = bytearray(store.read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    store.write_bytes(content)
    ended = run("doctor")
    assert ended.exit_code == 5
    assert "Traceback" not in ended.stderr


def test_a_changed_event_fails(run: Call, store: Path) -> None:
    """A record that was changed after it was written is found by its hash chain."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute(
            "UPDATE events SET actor = 'agent:nobody' WHERE run_id = 'busy' AND seq = 2"
        )
        connection.commit()
    assert standing(run, "record") == (
        "failed",
        "event 2 of run busy was changed after it was written",
    )


def test_a_clock_behind_the_record_fails(run: Call, clock: world.Clock) -> None:
    """A machine whose clock is behind the newest event cannot judge expiry."""
    clock.tick(-600)
    assert standing(run, "clock")[0] == "failed"


def test_locks_that_exclude_nobody_fail(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two can hold one lock, the check fails."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert standing(run, "locks")[0] == "failed"


def test_a_provider_of_spans_is_named(run: Call) -> None:
    """The check tells whether this process has a tracer provider, and which SDK is there."""
    how, said = standing(run, "telemetry")
    assert how in ("ok", "note")
    assert "provider" in said


def test_an_endpoint_in_the_environment_is_named_without_its_value(run: Call) -> None:
    """Where spans go may hold a secret, so only the variable's name is shown."""
    secret = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:secret@collector.test"}
    text = run("doctor", env=secret).stdout
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set" in text
    assert "secret" not in text
