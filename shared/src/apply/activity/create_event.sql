-- Millstream's schema, and the events that a board lists. No payloads.
CREATE SCHEMA IF NOT EXISTS millstream;
CREATE TABLE IF NOT EXISTS millstream.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    source text,
    relation text,
    reason text,
    records bigint NOT NULL,
    detail text NOT NULL,
    position text
);
CREATE INDEX IF NOT EXISTS event_kind_id ON millstream.event (kind, id);
COMMENT ON TABLE millstream.event IS 'Millstream: schema changes, rejections without their payload, recomputed totals and dropped partitions'
