-- Partitions of a table that are being detached, or were detached but not yet dropped. They are identified by the comment set
-- when the partition was created.
SELECT c.relname, coalesce(i.inhdetachpending, false) AS pending, pg_catalog.obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i
  ON i.inhrelid OPERATOR(pg_catalog.=) c.oid
 AND i.inhparent OPERATOR(pg_catalog.=) pg_catalog.format('%I.%I', $1, $2)::pg_catalog.regclass
WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relkind OPERATOR(pg_catalog.=) 'r'
  AND pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $3)
  AND (i.inhrelid IS NULL OR i.inhdetachpending)
