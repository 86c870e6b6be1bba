"""A SQLite persistence layer for Powertools, which ships DynamoDB and Redis only.

The condition on which a record may be put is that of its DynamoDB layer, word for word: the key is
new, or its record has expired, or it was in progress and its Lambda's time is over.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord

TABLE = (
    "CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY, status TEXT, expiration INTEGER,"
    " in_progress_expiration INTEGER, data TEXT, validation TEXT) WITHOUT ROWID"
)
PUT = """
INSERT INTO records (id, status, expiration, in_progress_expiration, validation)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, expiration = excluded.expiration,
    in_progress_expiration = excluded.in_progress_expiration, validation = excluded.validation
WHERE expiration < ? OR (status = 'INPROGRESS' AND in_progress_expiration IS NOT NULL
    AND in_progress_expiration < ?)
"""
UPDATE = "UPDATE records SET data = ?, expiration = ?, status = ? WHERE id = ?"
GET = """
SELECT id, status, expiration, in_progress_expiration, data, validation FROM records WHERE id = ?
"""


class LambdaClock:
    """Always fifteen minutes left: without a context Powertools spends time on warnings."""

    def get_remaining_time_in_millis(self) -> int:
        """Answer as a Lambda that has just begun."""
        return 900_000


class SqlitePersistenceLayer(BasePersistenceLayer):  # type: ignore[misc] # untyped where we lint
    """One connection in WAL and FULL, and a lock: faster under 32 threads than one each."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._turn = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(TABLE)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _get_record(self, idempotency_key: str) -> DataRecord:
        with self._turn:
            row = self._connection.execute(GET, (idempotency_key,)).fetchone()
        if row is None:
            raise IdempotencyItemNotFoundError
        return DataRecord(*row)

    def _put_record(self, data_record: DataRecord) -> None:
        now = time.time()
        values = (
            data_record.idempotency_key,
            data_record.status,
            data_record.expiry_timestamp,
            data_record.in_progress_expiry_timestamp,
            data_record.payload_hash,
            int(now),
            int(now * 1000),
        )
        with self._turn:
            put = self._connection.execute(PUT, values).rowcount
        if not put:
            raise IdempotencyItemAlreadyExistsError

    def _update_record(self, data_record: DataRecord) -> None:
        values = (data_record.response_data, data_record.expiry_timestamp, data_record.status)
        with self._turn:
            self._connection.execute(UPDATE, (*values, data_record.idempotency_key))

    def _delete_record(self, data_record: DataRecord) -> None:
        with self._turn:
            self._connection.execute(
                "DELETE FROM records WHERE id = ?", (data_record.idempotency_key,)
            )
