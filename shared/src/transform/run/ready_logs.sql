SELECT FROM millstream.feed f
JOIN ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS wanted (schema_name, table_name)
  ON f.schema_name OPERATOR(pg_catalog.=) wanted.schema_name AND f.table_name OPERATOR(pg_catalog.=) wanted.table_name
WHERE f.ready
