"""The nightly verb itself: what it finds, what it plays, and that it can fail. Nothing is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fresh import __main__ as fresh
from tests.fresh import smoke
from tests.support import ROOT

NOT_A_RUNTIME = {"jsonschema", "otel", "postgres", "prices"}


def test_every_extra_with_a_runtime_is_played() -> None:
    """An extra that brings a framework has a call of its own and says which framework it brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {*project["optional-dependencies"], "none"} - NOT_A_RUNTIME
    assert extras == set(fresh.EXTRAS) == set(smoke.SMOKES) == set(smoke.FRAMEWORKS)


def test_the_running_python_is_among_those_found() -> None:
    """One Python of each minor version is found, none that is too old, the running one first."""
    found = fresh.pythons()
    running = ".".join(map(str, sys.version_info[:3]))
    assert found[running] == Path(sys.executable)
    minors = [tuple(map(int, version.split(".")[:2])) for version in found]
    assert minors == sorted(set(minors))
    assert minors[0] >= (3, 11)


def test_pythons_are_named_by_version_or_path() -> None:
    """A minor version or a program chooses; what is no Python is not found."""
    minor = ".".join(map(str, sys.version_info[:2]))
    by_name, by_path = fresh.pythons([minor]), fresh.pythons([sys.executable])
    assert list(by_name) == list(by_path)
    assert fresh.pythons(["2.7"]) == fresh.pythons([shutil.which("true") or "/bin/true"]) == {}


def test_a_python_that_is_not_there_is_told() -> None:
    """Asked for a Python that is not there, it says so with the code of a wrong usage."""
    words = [sys.executable, "-m", "tests.fresh", "none", "--python", "2.7"]
    ended = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (ended.returncode, "there is no Python 2.7 here" in ended.stderr) == (2, True)


def test_what_fails_is_told_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that fails ends its line of the table, with what it said last, and the exit code is 1."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho Collecting\necho no such package\nexit 7\n")
    program.chmod(0o700)
    monkeypatch.setattr(fresh, "pythons", lambda _wanted: {"3.99.0": program})
    assert fresh.main(["none"]) == 1
    shown = capsys.readouterr()
    heads, line = shown.out.splitlines()
    assert heads == "extra  Python  packages  seconds  result"
    assert re.fullmatch(r"none   3\.99\.0  -         \d+ +FAILED: no such package", line)
    assert "Collecting" in shown.err
