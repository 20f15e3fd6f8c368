-- Millstream's schema, and what each source did in each minute. Writers share a source's minute by slots, so that they rarely
-- wait for each other. Half of each page stays free, so that updates stay on the same page.
CREATE SCHEMA IF NOT EXISTS millstream;
CREATE TABLE IF NOT EXISTS millstream.minute (
    source text NOT NULL,
    minute timestamptz NOT NULL,
    slot smallint NOT NULL,
    records bigint NOT NULL,
    rows bigint NOT NULL,
    rejected bigint NOT NULL,
    rejections jsonb NOT NULL,
    lag_micros bigint,
    committed_at timestamptz NOT NULL,
    PRIMARY KEY (source, minute, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE millstream.minute IS 'Millstream: records, rows, rejections and the largest lag of each source and minute, the sum over its slots'
