-- Millstream's schema and its tombstones. Versions compare bytewise.
CREATE SCHEMA IF NOT EXISTS millstream;
CREATE TABLE IF NOT EXISTS millstream.tombstone (
    table_name text NOT NULL,
    key bytea NOT NULL,
    version text COLLATE "C" NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, key)
);
COMMENT ON TABLE millstream.tombstone IS 'Millstream: keys that were deleted, so that older changes do not bring them back'
