CREATE SCHEMA millstream;
-- One row per table with a change log. prefix: what the names of its objects begin with. incarnation: cursors of another one are
-- void. identity: the cluster, database and timeline in which the log's transaction IDs mean something.
CREATE TABLE millstream.feed (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    prefix text NOT NULL UNIQUE,
    key_columns text[] NOT NULL,
    operator_schemas text[] NOT NULL,
    definition text NOT NULL,
    ready boolean NOT NULL DEFAULT false,
    incarnation uuid NOT NULL DEFAULT gen_random_uuid(),
    identity text NOT NULL DEFAULT '',
    PRIMARY KEY (schema_name, table_name)
);
-- Slots of a log that no open transaction writes any more: retention counts from then on.
CREATE TABLE millstream.feed_slot (
    prefix text NOT NULL REFERENCES millstream.feed (prefix) ON DELETE CASCADE,
    slot smallint NOT NULL,
    last_xid xid8 NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (prefix, slot)
);
-- What a transform has read of a table: the snapshot of its last committed run, in which that run is itself open.
CREATE TABLE millstream.transform_cursor (
    transform text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    incarnation uuid NOT NULL,
    seen pg_snapshot NOT NULL,
    detached oid[] NOT NULL,
    PRIMARY KEY (transform, schema_name, table_name)
)
