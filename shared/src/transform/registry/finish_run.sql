UPDATE millstream.transform
SET running = NULL, status = 'succeeded', reason = NULL, failures = 0,
    attempted_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $2),
    succeeded_at = pg_catalog.clock_timestamp(), seconds = $2, full_run = $3, rows_written = $4, rows_deleted = $5
WHERE name OPERATOR(pg_catalog.=) $1
