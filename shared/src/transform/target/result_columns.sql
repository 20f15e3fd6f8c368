SELECT a.attname::pg_catalog.text AS attname, pg_catalog.format_type(a.atttypid, a.atttypmod) AS sql_type
FROM pg_catalog.pg_attribute a
WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid
  AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
ORDER BY a.attnum
