-- A text for each table that changes whenever a column is added, dropped, renamed, retyped or set NOT NULL, and with the number of
-- its owner's statement triggers.
SELECT a.attrelid AS oid,
       pg_catalog.concat(pg_catalog.sum(pg_catalog.hashtextextended(
           pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull), 0
       )), ' ', (
           SELECT pg_catalog.count(*)
           FROM pg_catalog.pg_trigger t
           JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) t.tgfoid
           JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) f.pronamespace
           WHERE t.tgrelid OPERATOR(pg_catalog.=) a.attrelid AND NOT t.tgisinternal AND s.nspname OPERATOR(pg_catalog.<>) 'millstream'
             AND (t.tgtype OPERATOR(pg_catalog.&) 1::int2) OPERATOR(pg_catalog.=) 0
       )) AS fingerprint
FROM pg_catalog.pg_attribute a
WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
  AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
GROUP BY a.attrelid
