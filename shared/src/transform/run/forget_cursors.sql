DELETE FROM millstream.transform_cursor WHERE transform OPERATOR(pg_catalog.=) $1
