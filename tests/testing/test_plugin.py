"""The pytest plugin in the hands of a user: small suites of theirs, run in fresh folders."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from agentguard import Guard, configure, idempotent, tool_contract
from agentguard.testing import override

TOOLS = '''
from agentguard import Principal, idempotent, requires_approval, tool_contract

@tool_contract(effect="write")
@idempotent(key="pay:{to}")
def pay(to: str) -> str:
    """Pay."""
    return f"paid {to}"

@tool_contract(effect="write")
@idempotent(key="apay:{to}")
async def apay(to: str) -> str:
    """Pay."""
    return f"paid {to}"

@tool_contract(effect="write")
@idempotent(key="ask:{to}")
@requires_approval(roles=["finance"], quorum=2, expires="1h")
def ask(to: str) -> str:
    """Pay, if people say so."""
    return f"paid {to}"

@tool_contract(effect="write")
@idempotent(key="aask:{to}")
@requires_approval()
async def aask(to: str) -> str:
    """Pay, if people say so."""
    return f"paid {to}"
'''
QUIET = ("codspeed", "langsmith_plugin", "syrupy", "benchmark", "socket", "recording")


def suite(pytester: pytest.Pytester, source: str, *, fails: int = 0) -> pytest.RunResult:
    """Run a user's tests with the plugin that is installed, and check how many fail."""
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"
        "\nfilterwarnings = error"
    )
    pytester.makepyfile(tools=TOOLS, test_agent=f"import pytest\nfrom tools import *\n\n{source}")
    quiet = [word for name in QUIET for word in ("-p", f"no:{name}")]
    result = pytester.runpytest_inprocess("-q", *quiet)
    counts = result.parseoutcomes()
    assert (counts.get("failed", 0), counts.get("errors", 0)) == (fails, 0)
    assert counts.get("passed", 0) + fails == source.count("def test_")
    return result


# What the plugin costs those who do not use it.


def test_the_plugin_imports_pytest_and_nothing_else() -> None:
    """At its top the plugin imports pytest; everything else waits for a fixture to be used."""
    spec = importlib.util.find_spec("agentguard_pytest")
    assert spec
    assert spec.origin
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    names = [
        alias.name if isinstance(node, ast.Import) else node.module
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    assert {*names} == {"__future__", "typing", "pytest"}


def test_a_session_without_our_fixtures_never_loads_agentguard(pytester: pytest.Pytester) -> None:
    """The plugin is found by its entry point, and the core is not loaded when tests run."""
    pytester.makepyfile("""
        import sys

        def test_what_is_loaded(request):
            assert request.config.pluginmanager.has_plugin("agentguard")
            assert "agentguard_pytest" in sys.modules
            assert "agentguard" not in sys.modules
            assert "pydantic" not in sys.modules
        """)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:langsmith_plugin"]
    subprocess.run(words, cwd=pytester.path, check=True, stdout=subprocess.DEVNULL)


# The guard.


def test_each_test_has_a_store_of_its_own(pytester: pytest.Pytester) -> None:
    """What one test did is unknown to the next, so the same key is used anew."""
    suite(pytester, """
def pays(guard, guard_store):
    with guard.run("w"):
        pay("ann")
    (effect,) = guard.effects.list()
    assert effect.fence == 1
    assert guard.store.url == guard_store

def test_first(guard, guard_store):
    pays(guard, guard_store)

def test_second(guard, guard_store):
    pays(guard, guard_store)
""")  # fmt: skip


def test_calls_outside_a_run_use_the_guard_of_the_test(pytester: pytest.Pytester) -> None:
    """Sync and async tools called without a run are recorded in the store of the test."""
    suite(pytester, """
def test_sync(guard):
    assert pay("ann") == "paid ann"
    assert [effect.tool for effect in guard.effects.list()] == ["pay"]

async def test_async(guard):
    assert await apay("ann") == "paid ann"
    assert [effect.tool for effect in guard.effects.list()] == ["apay"]
""")  # fmt: skip


def test_the_configured_guard_is_put_back(tmp_path: Path) -> None:
    """After the test, calls outside runs use the guard that was configured before it."""

    @tool_contract(effect="write")
    @idempotent(key="note:{text}")
    def note(text: str) -> str:
        """Write a note."""
        return text

    with override(Guard(f"sqlite:///{tmp_path}/a.db")) as mine:
        configure(mine)
        with override(Guard(f"sqlite:///{tmp_path}/b.db")) as theirs:
            note("in the test")
        note("after it")
    assert [len(guard.effects.list()) for guard in (mine, theirs)] == [1, 1]
    mine.close()
    theirs.close()


def test_nothing_configured_stays_nothing_configured(pytester: pytest.Pytester) -> None:
    """A test without our fixtures, after one with them, gets the default store."""
    suite(pytester, """
from pathlib import Path

def test_a_with(guard):
    pay("ann")

def test_b_without():
    from agentguard import guard as room
    assert room._CONFIGURED == []
""")  # fmt: skip


def test_a_suite_says_where_the_store_is_and_what_the_guard_knows(
    pytester: pytest.Pytester,
) -> None:
    """Overriding `guard_store` and `guard_options` in a conftest reaches the guard."""
    pytester.makefile(".yaml", agent_run="agent_run:\n  workflow: refunds\n  max_steps: 3\n")
    pytester.makeconftest("""
        import pytest
        from agentguard import Principal

        @pytest.fixture
        def guard_store():
            return "memory://"

        @pytest.fixture
        def guard_options():
            return {"config": "agent_run.yaml", "principal": Principal(agent="support")}
        """)
    suite(pytester, """
def test_it(guard):
    assert guard.store.url == "memory://"
    with guard.run() as run:
        assert (run.workflow, run.limits.max_steps, run.principal.agent) == ("refunds", 3, "support")
""")  # fmt: skip


def test_a_suites_own_guard_wins(pytester: pytest.Pytester) -> None:
    """A fixture `guard` in a conftest stands before the plugin's, which does nothing then."""
    pytester.makeconftest("""
        import pytest

        @pytest.fixture
        def guard():
            return "theirs"
        """)
    suite(pytester, """
def test_it(guard):
    assert guard == "theirs"
""")  # fmt: skip


# Time.


@pytest.mark.parametrize("order", ["guard, fake_clock", "fake_clock, guard"])
def test_time_moves_when_it_is_told(pytester: pytest.Pytester, order: str) -> None:
    """A test that uses `fake_clock` decides when the time of an approval is over."""
    suite(pytester, f"""
from agentguard import ApprovalRequired

def test_expiry({order}):
    with pytest.raises(ApprovalRequired) as waiting:
        ask("ann")
    approval = waiting.value.approval
    assert (approval.expires_at - approval.created_at).seconds == 3600
    fake_clock.advance(minutes=59)
    assert guard.approvals.show(approval.id).status == "pending"
    fake_clock.advance(60)
    assert guard.approvals.show(approval.id).status == "expired"
""")  # fmt: skip


def test_time_is_real_for_those_who_do_not_ask(pytester: pytest.Pytester) -> None:
    """Without `fake_clock` the record has the machine's time."""
    suite(pytester, """
import datetime as dt

def test_now(guard):
    pay("ann")
    (effect,) = guard.effects.list()
    assert abs(dt.datetime.now(dt.UTC) - effect.created_at) < dt.timedelta(minutes=5)
""")  # fmt: skip


# People.


def test_people_decide_after_the_pause(pytester: pytest.Pytester) -> None:
    """Called after the pause, they decide everything that waits, in the roles and number asked for."""
    suite(pytester, """
from agentguard import ApprovalRejected, ApprovalRequired

def attempt(guard):
    with guard.run("w", run_id="r-1"):
        return ask("ann")

def test_yes(guard, approve_all):
    with pytest.raises(ApprovalRequired):
        attempt(guard)
    (approval,) = approve_all()
    assert [vote.person for vote in approval.decisions] == ["approve_all", "approve_all 2"]
    assert approval.reason() == "the test approves everything"
    assert attempt(guard) == "paid ann"
    assert approve_all() == []

def test_no(guard, reject_all):
    with pytest.raises(ApprovalRequired):
        attempt(guard)
    reject_all()
    with pytest.raises(ApprovalRejected, match="the test rejects everything"):
        attempt(guard)
    assert guard.effects.list()[0].fence == 0
""")  # fmt: skip


def test_people_decide_at_once(pytester: pytest.Pytester) -> None:
    """As the host of a run they decide as soon as a call waits, so that it goes on or is refused."""
    suite(pytester, """
from agentguard import ApprovalRejected

def test_yes(guard, approve_all):
    with guard.run("w", host=approve_all):
        assert ask("ann") == "paid ann"

async def test_yes_async(guard, approve_all):
    async with guard.run("w", host=approve_all):
        assert await aask("ann") == "paid ann"

def test_no(guard, reject_all):
    with guard.run("w", host=reject_all), pytest.raises(ApprovalRejected):
        ask("ann")
""")  # fmt: skip


def test_people_decide_only_what_they_are_asked_to(pytester: pytest.Pytester) -> None:
    """Given a tool or a run, they leave everything else waiting."""
    suite(pytester, """
from agentguard import ApprovalRequired

def test_it(guard, approve_all):
    for name in ("ann", "ben"):
        with pytest.raises(ApprovalRequired), guard.run("w", run_id=f"r-{name}"):
            ask(name)
    assert approve_all(tool="pay") == []
    (approval,) = approve_all(run_id="r-ben", tool="ask")
    assert approval.arguments == {"to": "ben"}
    assert [waiting.run_id for waiting in guard.approvals.list("pending")] == ["r-ann"]
""")  # fmt: skip


# What a failing test shows.


def test_a_failed_assertion_shows_the_record_and_no_code_of_ours(
    pytester: pytest.Pytester,
) -> None:
    """The report ends in the user's own line, with one paragraph on what the store has instead."""
    result = suite(pytester, """
from agentguard.testing import assert_wrote_once

def test_it(guard):
    with guard.run("w", run_id="r-1"):
        pay("ann"), pay("ben")
    assert_wrote_once(guard, tool=pay)
""", fails=1)  # fmt: skip
    result.stdout.fnmatch_lines([
        ">   *assert_wrote_once(guard, tool=pay)",
        (
            "E   *AssertionError: pay wrote 2 times. The store has:"
            ' succeeded in run r-1, step 1: to="ann"; succeeded in run r-1, step 2: to="ben".'
        ),
        "test_agent.py:*: AssertionError",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*assertions.py*")
