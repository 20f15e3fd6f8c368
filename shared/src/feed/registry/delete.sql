WITH cursors AS (
    DELETE FROM millstream.transform_cursor
    WHERE schema_name OPERATOR(pg_catalog.=) $1 AND table_name OPERATOR(pg_catalog.=) $2
)
DELETE FROM millstream.feed WHERE schema_name OPERATOR(pg_catalog.=) $1 AND table_name OPERATOR(pg_catalog.=) $2
