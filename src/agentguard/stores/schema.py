"""The tables, and how older ones become them. The tenant leads the key of all that tenants own."""

from __future__ import annotations

VERSION = 3
"""The schema this code reads and writes."""

APPLICATION_ID = 0x41474431
"""`AGD1`, in the header of every SQLite file of ours, so that foreign files are refused."""

_EFFECTS_OPEN = """CREATE INDEX effects_open ON effects (state, owner)
    WHERE state = 'executing' OR state = 'in_doubt' OR state = 'awaiting_approval'"""
# With OR, not IN, here and in the check of the state: SQLite would fill a table with the list
# whenever a row is written.

_AUTONOMY = """CREATE TABLE autonomy (tenant TEXT NOT NULL, tool TEXT NOT NULL, stage TEXT,
    pinned TEXT, passed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    changed_at INTEGER NOT NULL, changed_by TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (tenant, tool)) STRICT, WITHOUT ROWID"""
_CIRCUITS = """CREATE TABLE circuits (tenant TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    failures TEXT NOT NULL DEFAULT '[]', opened_at INTEGER, until INTEGER,
    probe_key TEXT, probe_fence INTEGER, tokens INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, name)) STRICT, WITHOUT ROWID"""
_SLOS = """CREATE TABLE slos (tenant TEXT NOT NULL, slo TEXT NOT NULL, over TEXT NOT NULL,
    n INTEGER NOT NULL DEFAULT 0, good INTEGER NOT NULL DEFAULT 0, bad INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL, stage TEXT, since INTEGER, since_n INTEGER, why TEXT,
    override_until INTEGER, override_by TEXT, override_reason TEXT,
    PRIMARY KEY (tenant, slo, over)) STRICT, WITHOUT ROWID"""
_OUTCOMES = """CREATE TABLE outcomes (tenant TEXT NOT NULL, slo TEXT NOT NULL, over TEXT NOT NULL,
    n INTEGER NOT NULL, at INTEGER NOT NULL, good INTEGER NOT NULL, bad INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict = 'good' OR verdict = 'bad'), outcome TEXT NOT NULL,
    run_id TEXT NOT NULL, step INTEGER,
    PRIMARY KEY (tenant, slo, over, n)) STRICT, WITHOUT ROWID"""
_OUTCOMES_BY_TIME = "CREATE INDEX outcomes_by_time ON outcomes (tenant, slo, over, at)"
_OUTCOMES_OF_RUN = (
    "CREATE INDEX outcomes_of_run ON outcomes (tenant, run_id, slo) WHERE step IS NULL"
)
_ARTIFACTS = """CREATE TABLE artifacts (tenant TEXT NOT NULL, kind TEXT NOT NULL,
    version TEXT NOT NULL, digest TEXT NOT NULL, value TEXT NOT NULL, cost INTEGER,
    made_at INTEGER NOT NULL, expires_at INTEGER, run_id TEXT, seal BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, version, digest)) STRICT, WITHOUT ROWID"""
_ARTIFACT_COUNTS = """CREATE TABLE artifact_counts (tenant TEXT NOT NULL, kind TEXT NOT NULL,
    version TEXT NOT NULL, hits INTEGER NOT NULL, misses INTEGER NOT NULL, saved INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, version)) STRICT, WITHOUT ROWID"""
SINCE_2 = (
    _SLOS, _OUTCOMES, _OUTCOMES_BY_TIME, _OUTCOMES_OF_RUN, _ARTIFACTS,
    _ARTIFACT_COUNTS,
)  # fmt: skip
"""What version 3 has more than version 2: service levels, artifacts."""

TABLES: tuple[str, ...] = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    """CREATE TABLE tenants (tenant TEXT PRIMARY KEY, hash_key BLOB NOT NULL,
        former_keys INTEGER NOT NULL DEFAULT 0) STRICT""",
    """CREATE TABLE owners (owner TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL,
        started_at INTEGER NOT NULL, lock_device INTEGER, lock_inode INTEGER,
        lease_until INTEGER, commits INTEGER NOT NULL DEFAULT 0, boot TEXT) STRICT""",
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
        trace TEXT, error TEXT, plan INTEGER, ending TEXT, seal BLOB NOT NULL,
        PRIMARY KEY (tenant, run_id)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX runs_by_time ON runs (tenant, started_at)",
    """CREATE TABLE events (tenant TEXT NOT NULL, run_id TEXT NOT NULL, seq INTEGER NOT NULL,
        at INTEGER NOT NULL, step INTEGER, kind TEXT NOT NULL, actor TEXT NOT NULL,
        data TEXT NOT NULL, hash BLOB NOT NULL, salt BLOB, body TEXT,
        PRIMARY KEY (tenant, run_id, seq)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE leaves (tenant TEXT NOT NULL, run_id TEXT NOT NULL, seq INTEGER NOT NULL,
        hash BLOB NOT NULL, position INTEGER,
        PRIMARY KEY (tenant, run_id, seq)) STRICT, WITHOUT ROWID""",
    "CREATE UNIQUE INDEX leaves_by_position ON leaves (tenant, position) WHERE position IS NOT NULL",
    """CREATE TABLE effects (tenant TEXT NOT NULL, key TEXT NOT NULL, tool TEXT NOT NULL,
        scope TEXT NOT NULL, effect TEXT NOT NULL CHECK (effect IN ('read','write')),
        state TEXT NOT NULL CHECK (state = 'executing' OR state = 'succeeded'
          OR state = 'failed_retryable' OR state = 'failed_final' OR state = 'in_doubt'
          OR state = 'awaiting_approval' OR state = 'denied'),
        payload_hash TEXT NOT NULL, contract_version TEXT NOT NULL,
        run_id TEXT NOT NULL, step INTEGER NOT NULL, call_id TEXT,
        fence INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,
        generation INTEGER NOT NULL DEFAULT 0, approval_id TEXT,
        owner TEXT, claim_id TEXT, lease_until INTEGER, first_started_at INTEGER,
        created_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER,
        reserved TEXT NOT NULL DEFAULT '[]', cost INTEGER NOT NULL DEFAULT 0,
        result TEXT, result_state TEXT, error TEXT, doubt_reason TEXT, late TEXT, undo TEXT,
        seal BLOB NOT NULL,
        PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID""",
    _EFFECTS_OPEN,
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
        used_at INTEGER, edits TEXT, edited_by TEXT, stage TEXT,
        seal BLOB NOT NULL,
        PRIMARY KEY (tenant, approval_id)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX approvals_by_status ON approvals (status, created_at)",
    "CREATE INDEX approvals_of_effect ON approvals (tenant, key)",
    """CREATE TABLE votes (tenant TEXT NOT NULL, approval_id TEXT NOT NULL,
        generation INTEGER NOT NULL, person TEXT NOT NULL, decision TEXT NOT NULL,
        roles TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
        seal BLOB NOT NULL,
        PRIMARY KEY (tenant, approval_id, generation, person)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE budgets (tenant TEXT NOT NULL, name TEXT NOT NULL, span TEXT NOT NULL,
        calls INTEGER NOT NULL, spent INTEGER NOT NULL, held INTEGER NOT NULL,
        PRIMARY KEY (tenant, name, span)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE rates (tenant TEXT NOT NULL, tool TEXT NOT NULL, next_at INTEGER NOT NULL,
        PRIMARY KEY (tenant, tool)) STRICT, WITHOUT ROWID""",
    _AUTONOMY,
    _CIRCUITS,
    *SINCE_2,
    """CREATE TABLE switches (id INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN
          ('tool','agent','tenant','all')), name TEXT NOT NULL, by TEXT NOT NULL,
        reason TEXT NOT NULL, at INTEGER NOT NULL, lifted_at INTEGER, lifted_by TEXT) STRICT""",
    "CREATE INDEX switches_on ON switches (kind, name) WHERE lifted_at IS NULL",
)
"""What a new store is made of."""

_EFFECT = (
    "tenant, key, tool, scope, effect, state, payload_hash, contract_version, run_id, step, call_id,"
    " fence, attempt, generation, approval_id, owner, claim_id, lease_until, first_started_at,"
    " created_at, started_at, finished_at, reserved, cost, result, result_state, error,"
    " doubt_reason, late, undo"
)
_RUN = (
    "tenant, run_id, status, part, started_at, part_started_at, updated_at, active_us, steps,"
    " last_step, model_calls, tool_calls, spent, held, input_tokens, output_tokens, cost_complete,"
    " head_seq, head_hash, finished_at, error, plan, ending, workflow, agent, subject, limits,"
    " policy_version, trace"
)
_APPROVAL = (
    "tenant, approval_id, key, generation, status, tool, requested_hash, payload_hash,"
    " contract_version, policy_version, arguments, arguments_hash, input_schema, rule, roles,"
    " quorum, allow_edit, frozen_fields, run_id, step, agent, subject, created_at, expires_at,"
    " decided_at, used_at, edits, edited_by, stage"
)
_VOTE = "tenant, approval_id, generation, person, decision, roles, reason, at"
_NO_SEAL = "seal BLOB NOT NULL DEFAULT x''"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # from 1: contents beside their events, leaves without a place, sealed rows
        "ALTER TABLE tenants ADD COLUMN former_keys INTEGER NOT NULL DEFAULT 0",
        "UPDATE tenants SET former_keys = 1",  # keys had the contract's fingerprint in them
        "ALTER TABLE owners ADD COLUMN lease_until INTEGER",
        "ALTER TABLE owners ADD COLUMN commits INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE owners ADD COLUMN boot TEXT",
        "ALTER TABLE events ADD COLUMN salt BLOB",
        "ALTER TABLE events ADD COLUMN body TEXT",
        """UPDATE events SET (salt, body) = (SELECT c.salt, c.body FROM contents c
            WHERE c.tenant = events.tenant AND c.run_id = events.run_id AND c.seq = events.seq)""",
        "DROP TABLE contents",
        "ALTER TABLE leaves RENAME TO leaves_1",
        """CREATE TABLE leaves (tenant TEXT NOT NULL, run_id TEXT NOT NULL, seq INTEGER NOT NULL,
            hash BLOB NOT NULL, position INTEGER,
            PRIMARY KEY (tenant, run_id, seq)) STRICT, WITHOUT ROWID""",
        """INSERT INTO leaves (tenant, run_id, seq, hash, position)
            SELECT tenant, run_id, seq, hash, position FROM leaves_1""",
        "DROP TABLE leaves_1",
        """CREATE UNIQUE INDEX leaves_by_position ON leaves (tenant, position)
            WHERE position IS NOT NULL""",
        "DROP INDEX effects_of_run",
        "DROP INDEX effects_open",
        _EFFECTS_OPEN,
        f"ALTER TABLE effects ADD COLUMN {_NO_SEAL}",
        f"UPDATE effects SET seal = agentguard_seal({_EFFECT})",  # noqa: S608 - fixed names
        "ALTER TABLE runs ADD COLUMN plan INTEGER",
        "ALTER TABLE runs ADD COLUMN ending TEXT",
        f"ALTER TABLE runs ADD COLUMN {_NO_SEAL}",
        f"UPDATE runs SET seal = agentguard_seal({_RUN})",  # noqa: S608 - fixed names
        "ALTER TABLE approvals ADD COLUMN stage TEXT",
        f"ALTER TABLE approvals ADD COLUMN {_NO_SEAL}",
        f"UPDATE approvals SET seal = agentguard_seal({_APPROVAL})",  # noqa: S608 - fixed names
        f"ALTER TABLE votes ADD COLUMN {_NO_SEAL}",
        f"UPDATE votes SET seal = agentguard_seal({_VOTE})",  # noqa: S608 - fixed names
        _AUTONOMY,
        _CIRCUITS,
    ),
    SINCE_2,
)
"""How a store of version n, from 1, becomes one of version n + 1. `agentguard_seal` is
`canonical.seal` as an SQL function."""
