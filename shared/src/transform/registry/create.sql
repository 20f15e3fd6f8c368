CREATE SCHEMA millstream;
-- One row per transform. running: the transaction of the run that holds the row; no committed row has one. reads: the tables whose
-- changes it declares. sources: the sources of the configuration that it belongs to.
CREATE TABLE millstream.transform (
    name text PRIMARY KEY,
    target text NOT NULL,
    sources text[] NOT NULL,
    reads text[] NOT NULL DEFAULT '{}',
    running xid8,
    status text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'succeeded', 'failed', 'waiting', 'skipped')),
    reason text,
    failures integer NOT NULL DEFAULT 0,
    attempted_at timestamptz,
    succeeded_at timestamptz,
    seconds double precision,
    full_run boolean,
    rows_written bigint,
    rows_deleted bigint
)
