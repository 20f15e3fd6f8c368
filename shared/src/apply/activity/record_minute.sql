-- Adds counters to a source's current minute. The commit does not wait for the disk: a minute more or less is not worth the
-- wait. The setting ends with the statement.
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
INSERT INTO millstream.minute AS stored
    (source, minute, slot, records, rows, rejected, rejections, lag_micros, committed_at)
SELECT $1,
       pg_catalog.date_bin(interval '1 minute', pg_catalog.statement_timestamp(), timestamp with time zone '2000-01-01 00:00:00+00'),
       $2, $3, $4, $5, $6::pg_catalog.jsonb, $7, pg_catalog.clock_timestamp()
FROM setting
-- The minute already has counters of this slot.
ON CONFLICT (source, minute, slot) DO UPDATE SET
    records = stored.records OPERATOR(pg_catalog.+) excluded.records,
    rows = stored.rows OPERATOR(pg_catalog.+) excluded.rows,
    rejected = stored.rejected OPERATOR(pg_catalog.+) excluded.rejected,
    rejections = CASE WHEN excluded.rejected OPERATOR(pg_catalog.=) 0 THEN stored.rejections ELSE (
        SELECT pg_catalog.jsonb_object_agg(reason, records) FROM (
            SELECT reason, pg_catalog.sum(records) AS records FROM (
                SELECT key AS reason, value::bigint AS records FROM pg_catalog.jsonb_each_text(stored.rejections)
                UNION ALL
                SELECT key, value::bigint FROM pg_catalog.jsonb_each_text(excluded.rejections)
            ) each_reason GROUP BY reason
        ) sums
    ) END,
    lag_micros = greatest(stored.lag_micros, excluded.lag_micros),
    committed_at = greatest(stored.committed_at, excluded.committed_at)
