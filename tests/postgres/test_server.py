"""The server that the tests use is a real one: durable, crashable, replicated."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres.home import alive, until
from tests.postgres.server import Server
from tests.support import ROOT

INSERT = """
import psycopg, sys
psycopg.connect(sys.argv[1], autocommit=True).execute("INSERT INTO t VALUES (2)")
"""


def test_a_new_database_is_empty(postgres_url: str) -> None:
    """Each test finds a database of its own, without tables."""
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'")
        assert tables.fetchall() == []
        connection.execute("CREATE TABLE left_behind (n int)")


def test_commits_are_flushed(postgres_server: Server) -> None:
    """The server has no setting that would make a commit less than durable."""
    names = ("fsync", "synchronous_commit", "full_page_writes")
    found = {name: postgres_server.query(f"SHOW {name}")[0][name] for name in names}
    assert found == dict.fromkeys(names, "on")


@pytest.mark.parametrize("by", [signal.SIGQUIT, signal.SIGKILL], ids=lambda by: by.name)
def test_a_crash_keeps_what_was_committed(own_postgres: Server, by: signal.Signals) -> None:
    """After a crash the server recovers at the same address, with every commit and nothing else."""
    own_postgres.execute("CREATE TABLE t (n int)")
    own_postgres.execute("INSERT INTO t VALUES (1)")
    with psycopg.connect(own_postgres.url()) as connection:
        connection.execute("INSERT INTO t VALUES (2)")
        own_postgres.crash(by)
        own_postgres.start()
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert own_postgres.query("SELECT n FROM t") == [{"n": 1}]
    assert "automatic recovery" in own_postgres.log()


def test_clients_can_be_cut_off(postgres_server: Server, postgres_url: str) -> None:
    """A backend that is terminated takes its client's connection with it."""
    with psycopg.connect(postgres_url) as connection:
        assert postgres_server.terminate_backends(connection.info.dbname) == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


@pytest.fixture(name="primary")
def primary_with_a_table() -> Iterator[Server]:
    """Give a server with a table."""
    with Server() as server:
        server.execute("CREATE TABLE t (n int)")
        yield server


def test_a_synchronous_standby_has_what_was_acknowledged(primary: Server) -> None:
    """While the standby hangs no commit is acknowledged; promoted, it has all that were."""
    standby = primary.standby(synchronous=True)
    primary.execute("INSERT INTO t VALUES (1)")
    standby.stall_receiver()
    waiting = subprocess.Popen(
        [sys.executable, "-c", INSERT, primary.url()], stderr=subprocess.DEVNULL
    )
    sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    until(lambda: primary.query(sql), "the commit to wait for the standby")
    assert waiting.poll() is None
    primary.crash(signal.SIGKILL)
    waiting.wait()
    standby.promote()
    assert standby.query("SELECT n FROM t") == [{"n": 1}]
    standby.execute("INSERT INTO t VALUES (3)")
    standby.remove()


def test_an_asynchronous_standby_loses_what_had_not_reached_it(primary: Server) -> None:
    """Commits that were acknowledged are missing after a failover to a standby that lagged."""
    standby = primary.standby()
    standby.stall_receiver()
    primary.execute("INSERT INTO t VALUES (1)")
    primary.crash()
    standby.promote()
    assert standby.query("SELECT n FROM t") == []
    standby.remove()


def test_transactions_go_through_the_pooler(pooled_url: str) -> None:
    """Behind pgbouncer in transaction mode two transactions of a client may meet two backends."""
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_servers_end_with_the_tests_that_were_killed(tmp_path: Path) -> None:
    """A killed test process leaves neither server nor folder behind."""
    program = (
        "import os, signal; from tests.postgres.server import Server, home\n"
        "server = Server().start();"
        "print(home().folder, server._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    folder, pid = said.stdout.split()
    until(lambda: not Path(folder).exists(), "the folder to be removed")
    assert not alive(int(pid))
