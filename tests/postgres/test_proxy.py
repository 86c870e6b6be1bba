"""The network that loses what it is told to lose, shown on a client that knows nothing of it."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.postgres.home import until
from tests.postgres.proxy import Loss, Messages, Proxy
from tests.postgres.server import Server, database_of


def insert(url: str, *, in_pipeline: bool) -> None:
    """Insert a row in a transaction."""
    connection = psycopg.connect(url)
    try:
        if in_pipeline:
            with connection.pipeline():
                connection.execute("CREATE TABLE t (n int)")
                connection.commit()
        else:
            connection.execute("CREATE TABLE t (n int)")
            connection.commit()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("loss", "tables", "in_pipeline"),
    [
        (Loss.REQUEST, 0, False),
        (Loss.REQUEST, 0, True),
        (Loss.ANSWER, 1, False),
        (Loss.ANSWER, 1, True),
        (Loss.LAST_WORD, 1, True),
    ],
)
def test_a_lost_commit_is_lost_where_it_was_said(
    postgres_server: Server, loss: Loss, tables: int, *, in_pipeline: bool
) -> None:
    """The client sees its connection break, and the server has committed or has not, as asked."""
    with database_of(postgres_server) as name, Proxy(postgres_server, lambda: loss) as proxy:
        with pytest.raises(psycopg.OperationalError):
            insert(proxy.url(name), in_pipeline=in_pipeline)
        assert proxy.losses == 1
        sql = "SELECT * FROM pg_tables WHERE schemaname = 'public'"
        until(lambda: not postgres_server.backends(name), "the backend to end")
        assert len(postgres_server.query(sql, database=name)) == tables


def test_without_a_loss_all_goes_through(postgres_server: Server) -> None:
    """A proxy that is told nothing loses nothing."""
    with database_of(postgres_server) as name, Proxy(postgres_server) as proxy:
        insert(proxy.url(name), in_pipeline=True)
        assert (proxy.commits, proxy.losses) == (1, 0)


def test_a_stalled_network_passes_on_later(postgres_server: Server) -> None:
    """Nothing comes through while it is stalled, and everything afterwards."""
    with (
        database_of(postgres_server) as name,
        Proxy(postgres_server) as proxy,
        psycopg.connect(proxy.url(name), autocommit=True) as connection,
    ):
        proxy.stall()
        asking = threading.Thread(target=connection.execute, args=("CREATE TABLE t (n int)",))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
        proxy.go_on()
        asking.join(10)
        assert not asking.is_alive()


def test_commits_are_counted_however_the_stream_is_cut() -> None:
    """A COMMIT in pieces is counted once, when its last byte has come."""
    said = b"\0\0\0\x08\x04\xd2\x16/" + b"\0\0\0\x09\0\3\0\0\0" + b"Q\0\0\0\x0bCOMMIT\0"
    messages = Messages()
    assert [messages.commits(bytes([byte])) for byte in said] == [0] * (len(said) - 1) + [1]
