CREATE SCHEMA millstream;
-- One row per version of a total; the board, status and maintenance find totals here.
CREATE TABLE millstream.total (
    name text NOT NULL,
    version integer NOT NULL,
    source text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    state text NOT NULL CHECK (state IN ('building', 'ready', 'removing')),
    served boolean NOT NULL DEFAULT false,
    definition text NOT NULL,
    recomputed_at timestamptz,
    recompute_seconds double precision,
    off_by bigint,
    PRIMARY KEY (name, version)
);
-- One row per transaction in which a trigger failed: a mark that another transaction sees may be deleted by a recompute that
-- does not see this one's rows.
CREATE TABLE millstream.total_broken (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version integer NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    relation text NOT NULL,
    sqlstate text NOT NULL
);
CREATE INDEX total_broken_xid ON millstream.total_broken (name, version, xid)
