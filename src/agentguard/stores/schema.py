"""The tables, as numbered migrations. The tenant leads every primary key."""

from __future__ import annotations

VERSION = 1
"""The schema this code reads and writes."""

APPLICATION_ID = 0x41474431
"""`AGD1`, in the header of every SQLite file of ours, so that foreign files are refused."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        "CREATE TABLE tenants (tenant TEXT PRIMARY KEY, hash_key BLOB NOT NULL) STRICT",
        """CREATE TABLE owners (owner TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL,
            started_at INTEGER NOT NULL, lock_device INTEGER, lock_inode INTEGER) STRICT""",
        """CREATE TABLE runs (tenant TEXT NOT NULL, run_id TEXT NOT NULL, workflow TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN
              ('running','waiting','succeeded','failed','halted','cancelled')),
            part INTEGER NOT NULL, agent TEXT NOT NULL, subject TEXT,
            limits TEXT NOT NULL, policy_version TEXT NOT NULL,
            started_at INTEGER NOT NULL, part_started_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL, finished_at INTEGER, active_us INTEGER NOT NULL DEFAULT 0,
            steps INTEGER NOT NULL DEFAULT 0, last_step INTEGER NOT NULL DEFAULT 0,
            model_calls INTEGER NOT NULL DEFAULT 0, tool_calls INTEGER NOT NULL DEFAULT 0,
            spent INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0,
            input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
            cost_complete INTEGER NOT NULL DEFAULT 1,
            head_seq INTEGER NOT NULL DEFAULT 0, head_hash BLOB NOT NULL,
            trace TEXT, error TEXT,
            PRIMARY KEY (tenant, run_id)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX runs_by_time ON runs (tenant, started_at)",
        """CREATE TABLE events (tenant TEXT NOT NULL, run_id TEXT NOT NULL, seq INTEGER NOT NULL,
            at INTEGER NOT NULL, step INTEGER, kind TEXT NOT NULL, actor TEXT NOT NULL,
            data TEXT NOT NULL, hash BLOB NOT NULL,
            PRIMARY KEY (tenant, run_id, seq)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE contents (tenant TEXT NOT NULL, run_id TEXT NOT NULL, seq INTEGER NOT NULL,
            salt BLOB NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (tenant, run_id, seq)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE leaves (tenant TEXT NOT NULL, position INTEGER NOT NULL,
            run_id TEXT NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
            PRIMARY KEY (tenant, position)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE effects (tenant TEXT NOT NULL, key TEXT NOT NULL, tool TEXT NOT NULL,
            scope TEXT NOT NULL, effect TEXT NOT NULL CHECK (effect IN ('read','write')),
            state TEXT NOT NULL CHECK (state IN ('awaiting_approval','denied','executing',
              'succeeded','failed_retryable','failed_final','in_doubt')),
            payload_hash TEXT NOT NULL, contract_version TEXT NOT NULL,
            run_id TEXT NOT NULL, step INTEGER NOT NULL, call_id TEXT,
            fence INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,
            generation INTEGER NOT NULL DEFAULT 0, approval_id TEXT,
            owner TEXT, claim_id TEXT, lease_until INTEGER, first_started_at INTEGER,
            created_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER,
            reserved TEXT NOT NULL DEFAULT '[]', cost INTEGER NOT NULL DEFAULT 0,
            result TEXT, result_state TEXT, error TEXT, doubt_reason TEXT, late TEXT, undo TEXT,
            PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID""",
        """CREATE INDEX effects_open ON effects (state, owner)
            WHERE state IN ('executing', 'in_doubt', 'awaiting_approval')""",
        "CREATE INDEX effects_of_run ON effects (tenant, run_id, step)",
        """CREATE TABLE approvals (tenant TEXT NOT NULL, approval_id TEXT NOT NULL,
            key TEXT NOT NULL, generation INTEGER NOT NULL,
            status TEXT NOT NULL CHECK (status IN
              ('pending','approved','rejected','expired','used','superseded')),
            tool TEXT NOT NULL, requested_hash TEXT NOT NULL, payload_hash TEXT NOT NULL,
            contract_version TEXT NOT NULL, policy_version TEXT NOT NULL,
            arguments TEXT NOT NULL, arguments_hash TEXT NOT NULL, input_schema TEXT,
            rule TEXT NOT NULL, roles TEXT NOT NULL, quorum INTEGER NOT NULL,
            allow_edit INTEGER NOT NULL, frozen_fields TEXT NOT NULL DEFAULT '[]',
            run_id TEXT NOT NULL, step INTEGER NOT NULL,
            agent TEXT NOT NULL, subject TEXT,
            created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, decided_at INTEGER,
            used_at INTEGER, edits TEXT, edited_by TEXT,
            PRIMARY KEY (tenant, approval_id)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX approvals_by_status ON approvals (status, created_at)",
        "CREATE INDEX approvals_of_effect ON approvals (tenant, key)",
        """CREATE TABLE votes (tenant TEXT NOT NULL, approval_id TEXT NOT NULL,
            generation INTEGER NOT NULL, person TEXT NOT NULL, decision TEXT NOT NULL,
            roles TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
            PRIMARY KEY (tenant, approval_id, generation, person)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE budgets (tenant TEXT NOT NULL, name TEXT NOT NULL, span TEXT NOT NULL,
            calls INTEGER NOT NULL, spent INTEGER NOT NULL, held INTEGER NOT NULL,
            PRIMARY KEY (tenant, name, span)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE rates (tenant TEXT NOT NULL, tool TEXT NOT NULL, next_at INTEGER NOT NULL,
            PRIMARY KEY (tenant, tool)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE switches (id INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN
              ('tool','agent','tenant','all')), name TEXT NOT NULL, by TEXT NOT NULL,
            reason TEXT NOT NULL, at INTEGER NOT NULL, lifted_at INTEGER, lifted_by TEXT) STRICT""",
        "CREATE INDEX switches_on ON switches (kind, name) WHERE lifted_at IS NULL",
    ),
)
