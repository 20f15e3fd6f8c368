-- The partitions of a table that a run of maintenance marked as detached by it ($3 ends the note in their comment), and those
-- whose concurrent detach is unfinished. A table that has been attached to another one since is not listed.
SELECT c.relname, d.description AS comment, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS pending
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
  AND (i.inhrelid IS NULL OR i.inhparent = to_regclass(format('%I.%I', $1, $2)))
  AND (i.inhdetachpending OR right(d.description, length($3)) = $3)
ORDER BY c.relname
