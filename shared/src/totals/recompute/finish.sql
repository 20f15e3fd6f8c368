WITH marks AS (
    DELETE FROM millstream.total_broken WHERE name OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2
)
UPDATE millstream.total
SET recomputed_at = pg_catalog.clock_timestamp(), off_by = $3, recompute_seconds = $4
WHERE name OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2
