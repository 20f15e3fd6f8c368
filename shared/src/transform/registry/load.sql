SELECT name, target, sources, status, reason, failures, seconds, full_run, rows_written, rows_deleted,
    EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) attempted_at)::pg_catalog.float8 AS attempted_seconds_ago,
    EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) succeeded_at)::pg_catalog.float8 AS succeeded_seconds_ago
FROM millstream.transform
ORDER BY name
