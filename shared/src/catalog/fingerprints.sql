-- A number for each table that changes whenever a column is added, dropped, renamed, retyped or set NOT NULL.
SELECT a.attrelid AS oid,
       pg_catalog.sum(pg_catalog.hashtextextended(
           pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull), 0
       ))::pg_catalog.text AS fingerprint
FROM pg_catalog.pg_attribute a
WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
  AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
GROUP BY a.attrelid
