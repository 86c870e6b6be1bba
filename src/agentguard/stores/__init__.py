"""Where the record is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..protocols import Clock
    from .postgres import PostgresStore
    from .sqlite import SqliteStore

DEFAULT_URL = "sqlite:///.agentguard/agentguard.db"


def open_store(
    url: str, *, clock: Clock | None = None, migrate: bool = False
) -> SqliteStore | PostgresStore:
    """Open the store that *url* names.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user@host/database`,
            or `memory://`.
        clock: the time, for tests.
        migrate: bring an older schema up to date.

    Raises:
        ConfigurationError: the URL names no store that this version has.
        StoreUnavailable: the store cannot be opened.
    """
    if is_on_server(url):
        return _postgres()(url, clock=clock, migrate=migrate)
    from .sqlite import SqliteStore

    if url == "memory://":
        return SqliteStore(":memory:", clock=clock)
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url == prefix:
        raise ConfigurationError(
            f"{url!r} is not a store: write sqlite:///agentguard.db, sqlite:////var/lib/agentguard.db,"
            " postgresql://user@host/database or memory://"
        )
    return SqliteStore(url.removeprefix(prefix), clock=clock, migrate=migrate)


def is_on_server(url: str) -> bool:
    """Return whether *url* names a store on a database server, not a file."""
    return url.startswith(("postgresql://", "postgres://"))


def _postgres() -> type[PostgresStore]:
    try:
        from .postgres import PostgresStore
    except ImportError as error:
        raise ConfigurationError(
            f"a store on PostgreSQL needs psycopg ({error}): pip install 'agentguard[postgres]'"
        ) from error
    return PostgresStore
