-- The tables of a schema that Millstream fills: marked by their comment, or named in the configuration. The row counts are
-- estimates from the last ANALYZE or VACUUM or, if neither has run yet, from the statistics of the writes.
SELECT c.relname, pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
       coalesce((
           SELECT pg_catalog.sum(
               CASE WHEN part.reltuples OPERATOR(pg_catalog.>) 0 THEN part.reltuples::bigint
                    ELSE pg_catalog.pg_stat_get_live_tuples(part.oid) END
           )
           FROM pg_catalog.pg_class part
           WHERE part.relkind OPERATOR(pg_catalog.=) 'r' AND part.oid OPERATOR(pg_catalog.=) ANY (
               SELECT c.oid
               UNION ALL
               SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) c.oid
           )
       ), 0)::bigint AS rows
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND NOT c.relispartition
  AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'p')
  AND (c.relname OPERATOR(pg_catalog.=) ANY ($2)
       -- On its own line, after the owner's text.
       OR pg_catalog.obj_description(c.oid, 'pg_class') OPERATOR(pg_catalog.~) '(?n)^Millstream: '
          -- Excludes partitions that were detached but not yet dropped.
          AND pg_catalog.obj_description(c.oid, 'pg_class') OPERATOR(pg_catalog.!~) '(?n)^Millstream: partition of ')
ORDER BY c.relname
