-- The tables of a schema that Millstream fills: marked by their comment, or named in the configuration. The row counts are
-- estimates from the last ANALYZE or VACUUM or, if neither has run yet, from the statistics of the writes.
SELECT c.relname, obj_description(c.oid, 'pg_class') AS comment,
       coalesce((
           SELECT sum(CASE WHEN part.reltuples > 0 THEN part.reltuples::bigint ELSE pg_stat_get_live_tuples(part.oid) END)
           FROM pg_class part
           WHERE part.relkind = 'r' AND part.oid IN (SELECT c.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid)
       ), 0)::bigint AS rows
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (c.relname = ANY ($2)
       -- On its own line, after the owner's text.
       OR obj_description(c.oid, 'pg_class') ~ '(?n)^Millstream: '
          -- Excludes partitions that were detached but not yet dropped.
          AND obj_description(c.oid, 'pg_class') !~ '(?n)^Millstream: partition of ')
ORDER BY c.relname
