-- The tables of a schema that Millstream fills: their comment says so, or the configuration names them. The rows of each, about:
-- as many as the last ANALYZE or VACUUM has found, or, where none has run yet, as were counted while they were written.
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
       -- On a line of its own, behind the owner's words.
       OR obj_description(c.oid, 'pg_class') ~ '(?n)^Millstream: '
          -- One that was detached and not yet dropped.
          AND obj_description(c.oid, 'pg_class') !~ '(?n)^Millstream: partition of ')
ORDER BY c.relname
