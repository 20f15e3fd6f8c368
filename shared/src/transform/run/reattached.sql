-- A row if a partition that was detached when the transform $1 last ran is a partition now: what was written to it meanwhile has
-- been passed over.
SELECT FROM millstream.transform_cursor c
JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) ANY (c.detached) AND NOT i.inhdetachpending
WHERE c.transform OPERATOR(pg_catalog.=) $1
LIMIT 1
