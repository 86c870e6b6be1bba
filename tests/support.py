"""What several tests need: the checkout's files, and how to read a module without running it."""

from __future__ import annotations

import ast
import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def committed_files() -> list[Path]:
    """List what git has or would take: every file of the checkout that is not ignored."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = (ROOT / name for name in sorted(set(listed.split("\0"))) if name)
    return [path for path in paths if path.is_file()]


def python_files(*folders: str) -> list[Path]:
    """List the Python files of the checkout that stand in one of *folders*."""
    inside = [ROOT / folder for folder in folders]
    return [
        path
        for path in committed_files()
        if path.suffix == ".py" and any(path.is_relative_to(folder) for folder in inside)
    ]


def place(path: Path, node: ast.AST | None = None) -> str:
    """Say where something is, the way an editor understands it."""
    line = f":{node.lineno}" if isinstance(node, (ast.stmt, ast.expr, ast.ExceptHandler)) else ""
    return f"{path.relative_to(ROOT)}{line}"


def functions(tree: ast.AST) -> list[Function]:
    """List every function of a module, the inner ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def code_lines(source: str) -> tuple[int, list[int]]:
    """Count the lines that are neither blank, comment nor docstring: of all, of each function."""
    tree = ast.parse(source)
    prose = {line for node in ast.walk(tree) for line in _docstring(node)}
    told = [
        line
        for line, text in enumerate(source.splitlines(), 1)
        if line not in prose and text.strip() and not text.strip().startswith("#")
    ]
    spans = [(node.lineno, node.end_lineno or node.lineno) for node in functions(tree)]
    return len(told), [sum(first <= line <= last for line in told) for first, last in spans]


def _docstring(node: ast.AST) -> range:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return range(0)
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    first = node.body[0]
    return range(first.lineno, (first.end_lineno or first.lineno) + 1)


class World:
    """An append-only file that outlives processes: what really happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def happen(self, effect: str) -> str:
        """Let *effect* happen, for good."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{effect}\n".encode())
        finally:
            os.close(descriptor)
        return f"done {effect}"

    @property
    def effects(self) -> list[str]:
        """Everything that happened, in order."""
        return self.path.read_text("utf-8").splitlines() if self.path.exists() else []
