"""Every extra alone, in a new environment of every Python there is: `python3 run.py fresh`.

    python3 run.py fresh [EXTRA …] [--python 3.12 …]

Each line of its table is an environment in a temporary folder, into which pip installed the checkout
with one extra as a user would, and in which `smoke.py` made one guarded call. It needs the standard
library, the network, and time: it is for the night.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke.py")
EXTRAS = ("none", "langchain", "langgraph", "llamaindex", "semantic-kernel", "testing")
OLDEST = (3, 11)
VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
PATIENCE = 1200
"""Seconds for one installation or one call."""


@dataclass(frozen=True)
class Line:
    """What became of one extra under one Python."""

    extra: str
    python: str
    packages: str
    seconds: float
    result: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as texts."""
        return (self.extra, self.python, self.packages, f"{self.seconds:.0f}", self.result)


HEADS = ("extra", "Python", "packages", "seconds", "result")


def main(arguments: Sequence[str]) -> int:
    """Play what was asked for, show a table, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="run.py fresh", description=__doc__.partition("\n")[0])
    parser.add_argument("extra", nargs="*", choices=[*EXTRAS, []], help="all of them by default")
    parser.add_argument(
        "--python", action="append", default=[], metavar="X", help="3.12, or a path"
    )
    asked = parser.parse_args(arguments)
    found = pythons(asked.python)
    if not found:
        parser.error(f"there is no Python {' or '.join(asked.python)} here")
    lines = [play(extra, *python) for extra in asked.extra or EXTRAS for python in found.items()]
    print(table([line.cells for line in lines]))
    return int(any(line.result != "ok" for line in lines))


def pythons(wanted: Sequence[str] = ()) -> dict[str, Path]:
    """Find the Pythons that agentguard runs on: version → program, one a minor version.

    Args:
        wanted: only these minor versions or programs.
    """
    found: dict[tuple[int, ...], tuple[str, Path]] = {}
    for program in [Path(word) for word in wanted if os.sep in word] or candidates():
        version = version_of(program)
        minor = tuple(map(int, version.split(".")[:2])) if version else ()
        if minor >= OLDEST:
            found.setdefault(minor, (version, program))
    names = {word for word in wanted if os.sep not in word}
    return {
        version: program
        for minor, (version, program) in sorted(found.items())
        if not names or ".".join(map(str, minor)) in names
    }


def candidates() -> Iterator[Path]:
    """List the programs that may be a Python: the running one, those on PATH, those of pyenv."""
    yield Path(sys.executable)
    for folder in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        yield from sorted(path for path in Path(folder).glob("python3.*") if may_be_new(path.name))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    made = [path for path in root.glob("versions/3.*/bin/python") if may_be_new(path.parts[-3])]
    yield from sorted(made, reverse=True)


def may_be_new(name: str) -> bool:
    """Tell by a name such as python3.12 or 3.12.1 whether it is worth asking."""
    found = re.fullmatch(r"(?:python)?3\.(\d+)(?:\.\d+)?", name)
    return found is not None and (3, int(found[1])) >= OLDEST


def version_of(program: Path) -> str:
    """Ask a program for its version; nothing if it is no Python that works."""
    try:
        said = subprocess.run(
            [program, "-c", VERSION], check=True, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    version = re.match(r"\d+\.\d+\.\d+\s", said.stdout)
    return version[0].strip() if version else ""


def play(extra: str, version: str, program: Path) -> Line:
    """Install one extra in a new environment and make its call there."""
    print(f"fresh: {extra} on Python {version}", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agentguard-fresh-") as name:
        ended = steps(extra, program, Path(name))
    seconds = time.monotonic() - began
    if ended.returncode:
        print(ended.stdout, file=sys.stderr)
        return Line(extra, version, "-", seconds, f"FAILED: {last_line(ended.stdout)}")
    return Line(extra, version, ended.stdout.split()[-2], seconds, "ok")


def steps(extra: str, program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Make the environment, install, call; return how the last step ended that was taken."""
    checkout = folder / "agentguard"
    copied = shutil.ignore_patterns(".git", ".venv*", ".*cache", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=copied)  # a build must leave nothing in the checkout
    what = str(checkout) if extra == "none" else f"{checkout}[{extra}]"
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    for words in (
        [program, "-m", "venv", folder / "venv"],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what],
        [python, "-m", "pip", "check"],
        [python, "-I", SMOKE, extra],
    ):
        ended = run([str(word) for word in words], folder)
        if ended.returncode:
            break
    return ended


def run(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one program and keep what it says."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        return subprocess.run(
            words, cwd=folder, env=clean, check=False, text=True, timeout=PATIENCE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(words, 1, f"not done after {late.timeout:.0f} seconds")


def last_line(said: str) -> str:
    """Return the last line that says something."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align *rows* below their heads."""
    columns = list(zip(HEADS, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEADS, *rows]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
