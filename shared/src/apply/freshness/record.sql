-- Records the last batch of a shard. The commit does not wait for the disk, because the next batch overwrites the row;
-- the setting ends with the statement.
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
INSERT INTO millstream.freshness (source, stream, shard, committed_at, arrived_at)
SELECT $1, $2, $3, pg_catalog.clock_timestamp(),
       timestamp with time zone '1970-01-01 00:00:00+00'
           OPERATOR(pg_catalog.+) ($4 OPERATOR(pg_catalog.*) interval '1 microsecond')
FROM setting
-- The shard already has a row.
ON CONFLICT (source, stream, shard) DO UPDATE SET committed_at = excluded.committed_at, arrived_at = excluded.arrived_at
