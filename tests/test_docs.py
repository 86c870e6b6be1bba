"""The documentation's tests are tests: each kind of block can fail, and nothing goes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml.error import YAMLError
from sybil import Document

from tests import documents
from tests.support import ROOT, committed_files


def check(tmp_path: Path, *blocks: str) -> None:
    """Check a document made of *blocks*; the first line of a block is its language."""
    path = tmp_path / "page.md"
    path.write_text("".join(f"Some words.\n\n```{block}\n```\n\n" for block in blocks))
    document = Document.parse(str(path), documents.parse)
    documents.enter_folder(document.namespace)
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        documents.leave_folder(document.namespace)


def test_blocks_of_a_document_share_their_names(tmp_path: Path) -> None:
    """A later python block sees what an earlier one defined."""
    check(tmp_path, "python\nx = 1", "python\nassert x == 1")


def test_a_document_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """What a block writes lands in a folder that is gone afterwards."""
    before = Path.cwd()
    check(tmp_path, "python\nopen('made.txt', 'w').close()")
    assert before == Path.cwd()
    assert not (before / "made.txt").exists()


def test_a_python_block_may_await(tmp_path: Path) -> None:
    """Top-level `await` and `async with` work as in a notebook."""
    check(
        tmp_path, "python\nimport asyncio\nx = await asyncio.sleep(0, 7)", "python\nassert x == 7"
    )


def test_a_wrong_python_block_fails_with_the_line_of_the_document(tmp_path: Path) -> None:
    """A traceback points into the Markdown file."""
    with pytest.raises(ZeroDivisionError) as caught:
        check(tmp_path, "python\nx = 1\n1 / 0")
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == (tmp_path / "page.md", 4)


def test_shown_output_is_compared(tmp_path: Path) -> None:
    """An output block has to show what the python block before it prints."""
    check(tmp_path, "python\nprint('one\\ntwo')", "output\none\ntwo")
    with pytest.raises(documents.Mismatch, match="the program says:\none"):
        check(tmp_path, "python\nprint('one')", "output\ntwo")


def test_dots_stand_for_anything(tmp_path: Path) -> None:
    """`…` matches a part of a line, or lines."""
    check(tmp_path, "python\nprint('run 7f3a done\\na\\nb\\nend')", "output\nrun … done\n…\nend")


def test_a_console_block_is_run_and_compared(tmp_path: Path) -> None:
    """A command below `$ ` runs, and its shown lines are held against what it says."""
    check(tmp_path, "console\n$ python -c 'print(42)'\n42")
    with pytest.raises(documents.Mismatch, match="the program says:\n42"):
        check(tmp_path, "console\n$ python -c 'print(42)'\n43")


def test_a_command_ends_with_the_code_that_is_told(tmp_path: Path) -> None:
    """A command has to succeed unless the line says with which code it exits."""
    check(tmp_path, "bash\npython -c 'raise SystemExit(4)'  # exit 4")
    with pytest.raises(documents.Mismatch, match="ended with 4, not 0"):
        check(tmp_path, "bash\npython -c 'raise SystemExit(4)'")


def test_a_named_block_is_saved_for_later_commands(tmp_path: Path) -> None:
    """A python block that names its file is written there, and a command can run it."""
    check(tmp_path, "python\n# file: app.py\nprint('hi')", "console\n$ python app.py\nhi")


@pytest.mark.parametrize(
    "line",
    ["python3 run.py fly", "pip install agentguard[cobol]", "curl example.org", "jq . x"],
)
def test_an_unknown_command_is_refused(tmp_path: Path, line: str) -> None:
    """A verb or an extra that does not exist, or a command nobody checks, fails."""
    with pytest.raises(documents.Mismatch):
        check(tmp_path, f"bash\n{line}")


def test_first_steps_are_known(tmp_path: Path) -> None:
    """Cloning, verbs of run.py and existing extras may be shown."""
    check(tmp_path, "bash\ngit clone <this repository> ag && cd ag\npython3 run.py demo")
    check(tmp_path, 'console\n$ pip install "agentguard[langgraph]"')


@pytest.mark.parametrize("block", ["\nx", "cobol\nx", "json\n{", "yaml\na: [", "python\nx ="])
def test_a_block_that_means_nothing_is_refused(tmp_path: Path, block: str) -> None:
    """No language, an unknown one, or text that does not parse, fails."""
    with pytest.raises((AssertionError, ValueError, SyntaxError, YAMLError)):
        check(tmp_path, block)


def test_every_page_is_run(request: pytest.FixtureRequest) -> None:
    """The README and each Markdown file below docs/ are handed to sybil."""
    pages = [path for path in committed_files() if path.suffix == ".md"]
    documented = [path for path in pages if path.is_relative_to(ROOT / "docs")]
    for path in [ROOT / "README.md", *documented]:
        found = request.config.hook.pytest_collect_file(file_path=path, parent=request.session)
        assert found, path
