-- The definition cannot be read any more.
UPDATE millstream.feed SET ready = false, definition = ''
WHERE schema_name OPERATOR(pg_catalog.=) $1 AND table_name OPERATOR(pg_catalog.=) $2
