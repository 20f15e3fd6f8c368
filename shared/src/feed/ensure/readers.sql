-- A row if a transform has a cursor of the table $1.$2.
SELECT FROM millstream.transform_cursor
WHERE schema_name OPERATOR(pg_catalog.=) $1 AND table_name OPERATOR(pg_catalog.=) $2
LIMIT 1
