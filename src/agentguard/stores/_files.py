"""What may be opened as a store file, and the sentence for everything else."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from pathlib import Path

from ..canonical import seal
from ..errors import ConfigurationError, StoreUnavailable
from ._owner import living
from .schema import APPLICATION_ID, MIGRATIONS, TABLES, VERSION

_CREATING = threading.Lock()
_WAL_BYTES = 4 * 1024 * 1024
_LOOKED_AT = 8192
"""Pages (32 MB) of a store whose effects are looked through when it is opened: some milliseconds."""
_AGAIN = 0.002
_MOUNTS = Path("/proc/self/mounts")
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs", "9p", "ceph"})


def prepare(path: Path) -> None:
    """Make sure that *path* can hold a store: its folder, its rights, its file system.

    An existing file is never opened here: closing any descriptor of a file drops every POSIX lock
    that this process holds on it, SQLite's among them ("How To Corrupt", §2.2).

    Raises:
        StoreUnavailable: it cannot be written, or its file system does not lock reliably.
    """
    try:
        with _CREATING:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileExistsError:
        return  # another process made it at this moment
    except OSError as error:
        raise StoreUnavailable(
            f"the store {path} cannot be written ({error.strerror}): give another path or its rights"
        ) from error
    kind = file_system(path)
    if kind in NETWORK:
        raise StoreUnavailable(
            f"{path} lies on a network file system ({kind}), whose locks cannot be trusted:"
            " put the store on a local disk"
        )


def file_system(path: Path) -> str | None:
    """Return the kind of file system that holds *path*, where the kernel tells."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    real, best, kind = str(path.resolve()), "", None
    for line in mounts.splitlines():
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def log_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Have a write-ahead log.

    While others make the same new file ready, SQLite says "locked" here at once, whatever its
    timeout is: so this asks again, for *patience* seconds.
    """
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_AGAIN)


def extend_wal(path: Path) -> None:
    """Make the write-ahead log large ahead of time; an fsync is cheaper when no file grows.

    To be called inside a write transaction, since only its holder may write to the log. SQLite
    takes what lies behind the last valid frame for nothing (file format, §4.1).
    """
    with contextlib.suppress(OSError), Path(f"{path}-wal").open("ab") as log:
        missing = _WAL_BYTES - log.tell()
        if missing > 0:
            log.write(bytes(missing))
            log.flush()
            os.fsync(log.fileno())


def identity(path: Path) -> tuple[int, int]:
    """Return what tells this file from another one at the same path."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def check_same(path: Path, opened: tuple[int, int]) -> None:
    """Refuse to write into a file that nobody else can find any more.

    Raises:
        StoreUnavailable: the file was removed or replaced since it was opened.
    """
    try:
        found = identity(path)
    except OSError:
        found = None
    if found != opened:
        raise StoreUnavailable(
            f"the store {path} was removed or replaced while it was open: nothing was written;"
            " put it back, then start this process again"
        )


def check_kind(connection: sqlite3.Connection, path: str) -> bool:
    """Return whether there is a store already; refuse another program's database untouched.

    Raises:
        ConfigurationError: it is one.
    """
    count = "SELECT count(*) FROM sqlite_master"
    try:  # in this order: another process may be making the store between the two
        empty = connection.execute(count).fetchone()[0] == 0
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
    except UnicodeDecodeError as error:  # what SQLite says is wrong is no text itself
        raise sqlite3.DatabaseError("malformed database schema") from error
    except sqlite3.DatabaseError as error:
        if "not a database" not in str(error):
            raise
        raise ConfigurationError(
            f"{path} is not a SQLite file: name a new file or an agentguard store"
        ) from error
    if kind != APPLICATION_ID and not empty:
        raise ConfigurationError(f"{path} is a database of another program: name a new file")
    return not empty


def check_pages(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a store whose pages hide effects; one too large for a look at its opening is not looked at.

    A damaged page can make a recorded key look free, and its rows cannot tell.

    Raises:
        StoreUnavailable: SQLite finds the effects' pages broken.
    """
    if connection.execute("PRAGMA page_count").fetchone()[0] > _LOOKED_AT:
        return
    found = connection.execute("PRAGMA quick_check(effects)").fetchone()[0]
    if found != "ok":
        raise StoreUnavailable(
            f"the store {path} is damaged ({found}): nothing was started; restore it from a backup,"
            " and see `agentguard doctor`"
        )


def check_schema(connection: sqlite3.Connection, path: str, *, migrate: bool) -> None:
    """Create, migrate or refuse the schema.

    Raises:
        ConfigurationError: another program's file, or a schema newer or older than this code's.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if check_kind(connection, path):
            _check_version(version, path, migrate=migrate)
        connection.create_function("agentguard_seal", -1, seal, deterministic=True)
        steps = MIGRATIONS[version - 1 : VERSION - 1] if version else (TABLES,)
        for statement in (statement for step in steps for statement in step):
            connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has ended it when the disk is full
            connection.execute("ROLLBACK")
        raise


def _check_version(version: int, path: str, *, migrate: bool) -> None:
    if version > VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer agentguard (schema {version}, this one reads {VERSION}):"
            " upgrade agentguard; nothing was changed"
        )
    if version < VERSION and not migrate:
        raise ConfigurationError(
            f"{path} has the older schema {version}: stop its workers, then run"
            " `agentguard store migrate`"
        )
    if version < VERSION and (working := living(Path(f"{path}.owners"))):
        raise ConfigurationError(
            f"{path} is in use by {working} process{'es'[: 2 * (working > 1)]} of the older schema"
            f" {version}: stop them, then migrate; nothing was changed"
        )
