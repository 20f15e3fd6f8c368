-- The last commit of each source, and how many of the 60 minutes before it had records.
SELECT wanted.source,
       (extract(epoch FROM latest.committed_at) OPERATOR(pg_catalog.*) 1000000)::bigint AS last_commit,
       coalesce(busy.minutes, 0)::bigint AS busy_minutes
FROM ROWS FROM (pg_catalog.unnest($1)) WITH ORDINALITY AS wanted (source, number)
LEFT JOIN LATERAL (
    SELECT m.minute FROM millstream.minute m WHERE m.source OPERATOR(pg_catalog.=) wanted.source ORDER BY m.minute DESC LIMIT 1
) last_minute ON true
LEFT JOIN LATERAL (
    SELECT pg_catalog.max(m.committed_at) AS committed_at FROM millstream.minute m
    WHERE m.source OPERATOR(pg_catalog.=) wanted.source AND m.minute OPERATOR(pg_catalog.=) last_minute.minute
) latest ON true
LEFT JOIN LATERAL (
    SELECT pg_catalog.count(DISTINCT m.minute) AS minutes FROM millstream.minute m
    WHERE m.source OPERATOR(pg_catalog.=) wanted.source
      AND m.minute OPERATOR(pg_catalog.>) (last_minute.minute OPERATOR(pg_catalog.-) interval '60 minutes')
      AND m.records OPERATOR(pg_catalog.>) 0
) busy ON true
ORDER BY wanted.number
