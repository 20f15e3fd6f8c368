-- The counters of each source and minute, for the current minute and the 60 before it.
SELECT m.source,
       ((extract(epoch FROM clock.minute) OPERATOR(pg_catalog.-) extract(epoch FROM m.minute)) OPERATOR(pg_catalog./) 60)::bigint AS minutes_ago,
       pg_catalog.sum(m.records)::bigint AS records,
       pg_catalog.sum(m.rows)::bigint AS rows,
       pg_catalog.sum(m.rejected)::bigint AS rejected,
       pg_catalog.max(m.lag_micros) AS lag_micros
FROM (
    SELECT pg_catalog.date_bin(interval '1 minute', pg_catalog.now(), timestamp with time zone '2000-01-01 00:00:00+00') AS minute
) clock
JOIN millstream.minute m
  ON m.minute OPERATOR(pg_catalog.>=) (clock.minute OPERATOR(pg_catalog.-) interval '60 minutes')
 AND m.minute OPERATOR(pg_catalog.<=) clock.minute
WHERE m.source OPERATOR(pg_catalog.=) ANY ($1)
GROUP BY m.source, m.minute, clock.minute
