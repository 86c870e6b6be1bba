"""The checkout itself: what every committed file keeps to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, committed_files, functions, place, python_files

# As patterns these do not match themselves; the examples below are put together from pieces.
ADDRESSES = re.compile(
    r"""
    pypi\.org | pythonhosted\.org | npmjs\.(?:org|com) | extra-index-[u]rl
    | (?<![\w.~-])/(?:root|work|home|Users)/\w
    """,
    re.VERBOSE,
)
DOT, SLASH = ".", "/"
SENTENCE = re.compile(r"[A-Z`0-9*_].*\s.*\s.*[.!?]`?$", re.DOTALL)
BLANKET = {"Exception", "BaseException"}


def test_no_committed_file_knows_a_registry_or_a_machine() -> None:
    """No file names a package registry's host or a folder of somebody's machine."""
    assert [
        f"{place(path)}:{number}: {found[0]}"
        for path in committed_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if (found := ADDRESSES.search(line))
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        f"see https://pypi{DOT}org/simple",
        f"pip install --extra-index{'-'}url=x",
        f'"{SLASH}root/x"',
        f"{SLASH}home/ada/x",
    ],
)
def test_an_address_is_seen(line: str) -> None:
    """The check finds hosts and folders inside a longer line."""
    assert ADDRESSES.search(line)


@pytest.mark.parametrize("line", ["homework/main", "the.org/root/x", "~/work/x", "sqlite:///a.db"])
def test_an_innocent_line_passes(line: str) -> None:
    """The check does not mistake relative paths and other addresses for a machine's."""
    assert not ADDRESSES.search(line)


def text_of(path: Path) -> str:
    """Read a file as text; a picture has no lines to check."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode()


def test_locks_pin_and_hash_every_package() -> None:
    """Every line of a lock file is one exact version or one of its hashes."""
    line = re.compile(r"[\w.-]+==[\w.]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [
        f"{place(path)}:{number}: {text}"
        for path in (ROOT / "requirements").glob("*.lock")
        for number, text in enumerate(path.read_text().splitlines(), 1)
        if not line.fullmatch(text)
    ] == []


def test_every_test_says_what_is_true() -> None:
    """Each test function has a sentence as its docstring."""
    assert [
        f"{place(path, node)} {node.name}"
        for path in python_files("tests")
        for node in functions(ast.parse(path.read_text()))
        if node.name.startswith("test_") and not SENTENCE.match(ast.get_docstring(node) or "")
    ] == []


def test_no_error_vanishes() -> None:
    """No `except` is left empty, and no `suppress` swallows everything."""
    assert [
        place(path, node)
        for path in python_files("src", "integrations", "tests", "examples", "benchmarks")
        for node in ast.walk(ast.parse(path.read_text()))
        if swallows(node)
    ] == []


def swallows(node: ast.AST) -> bool:
    """Tell whether *node* makes an error disappear without a word."""
    if isinstance(node, ast.ExceptHandler):
        return all(isinstance(each, ast.Pass) or is_ellipsis(each) for each in node.body)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(ast.unparse(argument) in BLANKET for argument in node.args)
    return False


def is_ellipsis(node: ast.stmt) -> bool:
    """Tell whether *node* is three dots alone on a line."""
    return isinstance(node, ast.Expr) and ast.unparse(node) == "..."


@pytest.mark.parametrize(
    "source",
    [
        "try: f()\nexcept OSError: pass",
        "try: f()\nexcept: ...",
        "with contextlib.suppress(Exception): f()",
    ],
)
def test_a_vanishing_error_is_seen(source: str) -> None:
    """The check knows the three ways to swallow an error."""
    assert any(swallows(node) for node in ast.walk(ast.parse(source)))


def test_ci_runs_what_everybody_runs() -> None:
    """CI calls `python3 run.py test` and nothing else."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec python3 run.py test"]


def test_run_py_needs_the_standard_library_only() -> None:
    """`run.py` imports nothing that a bare Python does not have."""
    imports = list(ast.walk(ast.parse((ROOT / "run.py").read_text())))
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_run_py_without_a_verb_lists_its_verbs() -> None:
    """A person who types only `python3 run.py` is told what can follow, and the exit code is 1."""
    words = [sys.executable, str(ROOT / "run.py")]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert re.findall(r"^  (\w+) ", ended.stderr, re.MULTILINE) == [
        "demo",
        "test",
        "lint",
        "docs",
        "conformance",
        "faults",
        "bench",
        "fresh",
        "phoenix",
        "lock",
    ]
