"""The tables of the ledger. Columns are named like the fields of the records (rows.py)."""

from __future__ import annotations

APPLICATION_ID = 0x41525343  # "ARSC": tells our file from any other SQLite database
VERSION = 5

SCHEMA = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL UNIQUE,
    base_commit TEXT NOT NULL,
    metric TEXT NOT NULL,
    goal TEXT NOT NULL,
    level TEXT NOT NULL,
    budget_s REAL,
    budget_clock TEXT NOT NULL,
    limits TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    secret INTEGER NOT NULL,
    created_at REAL NOT NULL,
    elapsed_s REAL NOT NULL DEFAULT 0,
    deterministic INTEGER,
    allowance_s REAL,
    score_allowance_s REAL,
    stopped TEXT,
    warnings TEXT NOT NULL DEFAULT '[]'
);
CREATE TABLE experiment (
    session INTEGER NOT NULL REFERENCES session(id),
    number INTEGER NOT NULL,
    base INTEGER NOT NULL,
    [commit] TEXT NOT NULL,
    tree TEXT NOT NULL,
    agent TEXT NOT NULL,
    description TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    status TEXT,
    reason TEXT,
    metric REAL,
    detail TEXT NOT NULL DEFAULT '',
    [order] INTEGER,
    started_at REAL NOT NULL,
    ended_at REAL,
    peak_memory_bytes INTEGER,
    removed_lines INTEGER NOT NULL DEFAULT 0,
    added_lines INTEGER NOT NULL DEFAULT 0,
    hypothesis TEXT NOT NULL DEFAULT '',
    notes TEXT NOT NULL DEFAULT '',
    tokens INTEGER,
    usd REAL,
    flag TEXT,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX experiment_order ON experiment(session, [order])
    WHERE [order] IS NOT NULL;
CREATE INDEX experiment_open ON experiment(session) WHERE status IS NULL;
CREATE INDEX experiment_keep ON experiment(session, [order]) WHERE status = 'keep';
CREATE INDEX experiment_tree ON experiment(session, tree);
CREATE INDEX experiment_status ON experiment(session, status, [order]);
CREATE INDEX experiment_agent ON experiment(session, agent, number, status, tokens, usd);
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session(id),
    experiment INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    role TEXT NOT NULL,
    segment INTEGER NOT NULL,
    [index] INTEGER NOT NULL,
    retry INTEGER NOT NULL,
    [commit] TEXT NOT NULL,
    seed INTEGER NOT NULL,
    slot INTEGER,
    started_at REAL NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0,
    metric REAL,
    reason TEXT,
    numbers TEXT NOT NULL DEFAULT '{}',
    exit_code INTEGER,
    wall_s REAL,
    cpu_s REAL,
    peak_memory_bytes INTEGER,
    score_cpu_s REAL,
    score_wall_s REAL,
    holdout REAL,
    holdout_reason TEXT,
    holdout_cpu_s REAL,
    holdout_wall_s REAL,
    UNIQUE (session, experiment, attempt, role, segment, [index], retry),
    UNIQUE (session, seed)
);
CREATE INDEX run_commit ON run(session, [commit], role);
CREATE INDEX run_open ON run(session) WHERE finished = 0;
CREATE INDEX run_scratch ON run(session) WHERE role = 'scratch';
CREATE TABLE turn (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session(id),
    at REAL NOT NULL,
    agent TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    tokens INTEGER,
    usd REAL
);
CREATE INDEX turn_session ON turn(session);
CREATE TABLE published (
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (path, sha256)
) WITHOUT ROWID;
CREATE TABLE note (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session(id),
    at REAL NOT NULL,
    agent TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX note_session ON note(session);
CREATE TABLE segment (
    session INTEGER NOT NULL REFERENCES session(id),
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    after_order INTEGER NOT NULL,
    reason TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
"""
