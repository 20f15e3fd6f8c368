WITH removed AS (
    DELETE FROM millstream.transform WHERE name OPERATOR(pg_catalog.=) $1 RETURNING name
)
DELETE FROM millstream.transform_cursor c USING removed WHERE c.transform OPERATOR(pg_catalog.=) removed.name
