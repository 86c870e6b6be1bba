"""The documentation runs: what each kind of code block in a Markdown file means to the tests.

The convention is told in AGENTS.md; `conftest.py` at the top of the checkout hands the README and
everything below docs/ to `evaluate`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.support import ROOT

FILE_LINE = re.compile(r"# file: (?P<name>[\w./-]+)\n")
COMMAND = re.compile(r"(?P<words>.*?)(?:\s+# exit (?P<code>\d+))?")
EXTRA = re.compile(r"\[(?P<names>[\w,-]+)\]")
POSTGRES = "postgresql:///shop"
ELSEWHERE = ("git clone ", "cd ")  # what a reader does before there is a checkout


class Mismatch(AssertionError):
    """The document and the program disagree."""


def parse(document: Document) -> Iterator[Region]:
    """Find every fenced block of a document, with or without a language."""
    for found in FencedCodeBlockLexer(r".*", {"language": "language", "source": "source"})(
        document
    ):
        yield Region(found.start, found.end, found.lexemes, evaluate)


def evaluate(example: Example) -> None:
    """Check one block according to its language."""
    language = str(example.parsed["language"]).strip()
    if language not in BLOCKS:
        raise Mismatch(f"```{language}: say one of {', '.join(BLOCKS)}")
    source = str(example.parsed["source"])
    if POSTGRES in source:
        start_postgres(example.namespace)
    named = FILE_LINE.match(source)
    if named:
        path = Path(named["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    if not (named and language == "python"):  # a saved program is run by a later command
        BLOCKS[language](source, example)


def python(source: str, example: Example) -> None:
    """Run a block in its document's own module, with `await` allowed as in a notebook."""
    module = example.namespace.setdefault("module", ModuleType(f"docs_{Path(example.path).stem}"))
    sys.modules[module.__name__] = module
    padded = "\n" * example.line + source  # so that a traceback names the document's line
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(padded, example.path, "exec", flags=flags, dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        running = eval(code, module.__dict__)
        if inspect.iscoroutine(running):
            asyncio.run(running)
    example.namespace["printed"] = printed.getvalue()


def output(source: str, example: Example) -> None:
    """Compare a block with what the python block before it has printed."""
    compare(source, example.namespace.pop("printed", ""))


def console(source: str, _: Example) -> None:
    """Run each line that begins with `$ ` and compare the lines below with what it says."""
    for chunk in re.split(r"^\$ ", source, flags=re.MULTILINE)[1:]:
        line, *shown = chunk.split("\n")
        expected = "\n".join(shown)
        said = command(line)
        if expected.strip() and said is not None:
            compare(expected, said)


def bash(source: str, _: Example) -> None:
    """Run each line."""
    for line in source.splitlines():
        if line.strip() and not line.startswith("#"):
            command(line)


def yaml(source: str, _: Example) -> None:
    """Load a block; one that begins with `agent_run:` is a configuration."""
    if "agent_run" not in (YAML(typ="safe", pure=True).load(source) or {}):
        return
    from agentguard import Guard

    Path("agent_run.yaml").write_text(source, encoding="utf-8")
    Guard.from_config("agent_run.yaml", store="sqlite:///agent_run.db")


def read_json(source: str, _: Example) -> None:
    """Load a block."""
    json.loads(source)


def nothing(_source: str, _example: Example) -> None:
    """Leave pictures and prose alone."""


BLOCKS: dict[str, Callable[[str, Example], None]] = {
    "python": python,
    "output": output,
    "console": console,
    "bash": bash,
    "yaml": yaml,
    "json": read_json,
    "mermaid": nothing,
    "text": nothing,
}


def command(line: str) -> str | None:
    """Run or check the commands of a line; what was said, or None where nothing was run."""
    said = None
    for part in line.split("&&"):
        match = COMMAND.fullmatch(part.strip())
        words, code = (match["words"], int(match["code"] or 0)) if match else (part, 0)
        if words.startswith(("agentguard ", "python ")):
            said = run(words, code)
        else:
            check(words)
    return said


def run(words: str, expected: int) -> str:
    """Run a command of the checkout's `.venv` in the document's folder."""
    program, *rest = shlex.split(words)
    found = Path(sys.executable).with_name(program)
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    ended = subprocess.run(
        [found, *rest],
        check=False,
        env=environment,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if ended.returncode != expected:
        raise Mismatch(f"$ {words}\nended with {ended.returncode}, not {expected}:\n{ended.stdout}")
    return ended.stdout


def check(words: str) -> None:
    """Check a command that a test cannot run: its verb, or its extra, has to exist."""
    first = words.removeprefix("python3 run.py ").partition(" ")[0]
    if words.startswith("python3 run.py ") and first in verbs():
        return
    wanted = {name for found in EXTRA.finditer(words) for name in found["names"].split(",")}
    if words.startswith(("pip install ", "python3 -m pip install ")) and wanted <= extras():
        return
    if not words.startswith(ELSEWHERE):
        raise Mismatch(f"$ {words}\nis no command that the documentation's tests know")


def verbs() -> set[str]:
    """Read the verbs of `run.py` off its own usage text."""
    usage = subprocess.run(
        [sys.executable, ROOT / "run.py"], check=False, capture_output=True, text=True
    )
    return set(re.findall(r"^  (\w+) ", usage.stderr, re.MULTILINE))


def extras() -> set[str]:
    """Read the distribution's extras."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


def compare(expected: str, said: str) -> None:
    """Hold what a document shows against what was said; `…` stands for anything, also for lines."""
    pattern = re.escape(tidy(expected)).replace("…", ".*")
    if not re.fullmatch(pattern, tidy(said), re.DOTALL):
        raise Mismatch(f"the document shows:\n{expected}\nthe program says:\n{said}")


def tidy(text: str) -> str:
    """Drop what no reader sees: space at line ends, blank lines around."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def enter_folder(namespace: dict[str, Any]) -> None:
    """Give a document a folder of its own to run in."""
    stack = namespace["stack"] = contextlib.ExitStack()
    folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    stack.enter_context(contextlib.chdir(folder))


def start_postgres(namespace: dict[str, Any]) -> None:
    """Give a document that names the local server's database `shop` a server that has it."""
    if "postgres" in namespace:
        return
    from tests.postgres.server import Server

    server = namespace["postgres"] = namespace["stack"].enter_context(Server())
    server.execute("CREATE DATABASE shop")
    patch = namespace["stack"].enter_context(pytest.MonkeyPatch.context())
    for name, value in (("HOST", server.folder), ("PORT", server.port), ("USER", "postgres")):
        patch.setenv(f"PG{name}", str(value))


def leave_folder(namespace: dict[str, Any]) -> None:
    """Forget a document's folder and module."""
    namespace["stack"].close()
    if "module" in namespace:
        sys.modules.pop(namespace["module"].__name__, None)
