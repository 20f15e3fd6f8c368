-- Partitions of a table that are being detached, or were detached but not yet dropped. They are identified by the comment set
-- when the partition was created.
SELECT c.relname, coalesce(i.inhdetachpending, false) AS pending, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = format('%I.%I', $1, $2)::regclass
WHERE n.nspname = $1 AND c.relkind = 'r'
  AND starts_with(obj_description(c.oid, 'pg_class'), $3)
  AND (i.inhrelid IS NULL OR i.inhdetachpending)
