-- The key as a named composite type: its comparison treats NULLs as equal, and it has a hash.
CREATE TYPE {key} AS ({typed_groups});
-- Primary keys, because a publication of all tables (an RDS blue/green deployment) rejects UPDATE and DELETE without one.
-- Space is left in each page, so that an update stays within it (HOT); no figure is indexed for the same reason.
CREATE TABLE {batch} (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY, {typed_groups}, {typed_figures},
    long boolean NOT NULL GENERATED ALWAYS AS ({long}) STORED,
    hash bigint NOT NULL GENERATED ALWAYS AS ({hash}) STORED
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE TABLE {delta} (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY, {typed_groups}, {typed_figures},
    long boolean NOT NULL GENERATED ALWAYS AS ({long}) STORED
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
-- The sums of dropped partitions, each of which is a piece.
CREATE TABLE {frozen} (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY, piece text NOT NULL, dropped_at timestamptz NOT NULL DEFAULT now(),
    {typed_groups}, {typed_figures}
);
-- The lock and the state of folding.
CREATE TABLE {fold} (folded_at timestamptz NOT NULL, keep_from timestamptz NOT NULL);
INSERT INTO {fold} VALUES ('-infinity', '-infinity');
-- The lock of recomputing: another one, so that folding goes on meanwhile.
CREATE TABLE {recompute} (started_at timestamptz);
CREATE INDEX {batch_hash} ON {batch} (hash);
CREATE INDEX {frozen_piece} ON {frozen} (piece);
CREATE INDEX {batch_key} ON {batch} ({groups}) WHERE NOT long;
CREATE INDEX {delta_key} ON {delta} ({groups}) WHERE NOT long
