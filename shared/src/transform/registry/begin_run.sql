UPDATE millstream.transform
SET running = pg_catalog.pg_current_xact_id(), target = $2, sources = $3, reads = $4
WHERE name OPERATOR(pg_catalog.=) $1
