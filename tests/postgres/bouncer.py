"""A pgbouncer in transaction mode: two transactions of a client may meet two backends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import IO, Self

from tests.postgres.home import PATIENCE, free_port, home, until
from tests.postgres.server import Server


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()


def bouncer_program() -> str | None:
    """Find pgbouncer, where it is installed."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
