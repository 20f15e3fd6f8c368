INSERT INTO millstream.transform AS t (name, target, sources, status, reason, failures, attempted_at)
VALUES ($1, $2, $3, $4, $5, CASE $4 WHEN 'failed' THEN 1 ELSE 0 END, pg_catalog.clock_timestamp())
-- The last run that succeeded stays on record.
ON CONFLICT (name) DO UPDATE SET target = excluded.target, sources = excluded.sources, status = excluded.status, reason = excluded.reason,
    failures = t.failures OPERATOR(pg_catalog.+) excluded.failures, attempted_at = excluded.attempted_at
