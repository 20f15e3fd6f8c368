-- Millstream's schema and the freshness of its tables. Half of each page stays free, so that updates stay on the same page.
CREATE SCHEMA IF NOT EXISTS millstream;
CREATE TABLE IF NOT EXISTS millstream.freshness (
    source text NOT NULL,
    stream text NOT NULL,
    shard text NOT NULL,
    committed_at timestamptz NOT NULL,
    arrived_at timestamptz NOT NULL,
    PRIMARY KEY (source, stream, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE millstream.freshness IS 'Millstream: when the last batch of each shard was committed, and when its oldest record had arrived'
