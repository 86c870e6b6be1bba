"""Rows that carry a seal: believed only as they were written, and written where they changed."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from ..canonical import seal
from ..errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ..protocols import Tx


def check_seal(what: str, values: Sequence[Any], sealed: bytes | None) -> None:
    """Refuse a row that is not as it was written.

    Raises:
        StoreUnavailable: it is damaged.
    """
    if sealed is None or seal(*values) != bytes(sealed):
        raise StoreUnavailable(
            f"the row of {what} is not as it was written: the store is damaged, and nothing was"
            " started; see agentguard doctor"
        )


@contextlib.contextmanager
def reading(what: str) -> Generator[None]:
    """Say of *what* that it is damaged, if its values cannot be what was written.

    Raises:
        StoreUnavailable: it is damaged.
    """
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise StoreUnavailable(f"{what} is damaged; see agentguard doctor") from error


def write_changes(
    tx: Tx, table: str, columns: tuple[str, ...], was: Sequence[Any], now: Sequence[Any]
) -> bytes | None:
    """Write the columns that are not as they *was*, and return the new seal, if any is not.

    The first two name the row.

    A column that is written costs its indexes and its checks, also if nothing changes in it.
    """
    changed = [i for i, value in enumerate(now) if value != was[i]]
    if not changed:
        return None
    sealed = seal(*now)
    sql = _update(table, tuple([columns[i] for i in changed]))
    tx.run(sql, [*[now[i] for i in changed], sealed, now[0], now[1]])
    return sealed


@functools.lru_cache(maxsize=256)
def _update(table: str, names: tuple[str, ...]) -> str:
    key = {"effects": "key", "runs": "run_id", "approvals": "approval_id"}[table]
    columns = ", ".join(f"{name} = ?" for name in (*names, "seal"))
    return f"UPDATE {table} SET {columns} WHERE tenant = ? AND {key} = ?"  # noqa: S608 - fixed names
