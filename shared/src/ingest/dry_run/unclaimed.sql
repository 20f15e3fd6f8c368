-- The tables of a schema whose comments name a source.
SELECT c.relname, pg_catalog.obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND NOT c.relispartition
  AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'p')
  AND pg_catalog.obj_description(c.oid, 'pg_class') OPERATOR(pg_catalog.~) '(?n)^Millstream: source '
ORDER BY c.relname
