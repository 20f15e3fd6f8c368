-- The partitions of a table that a run of maintenance marked as detached by it ($3 ends the note in their comment), and those
-- whose concurrent detach is unfinished. A table that has been attached to another one since is not listed.
SELECT c.relname, d.description AS comment, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS pending
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_description d
  ON d.objoid OPERATOR(pg_catalog.=) c.oid
 AND d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
 AND d.objsubid OPERATOR(pg_catalog.=) 0
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) c.oid
WHERE n.nspname OPERATOR(pg_catalog.=) $1
  AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'p')
  AND (
      i.inhrelid IS NULL
      OR i.inhparent OPERATOR(pg_catalog.=) pg_catalog.to_regclass(pg_catalog.format('%I.%I', $1, $2))
  )
  AND (i.inhdetachpending OR pg_catalog.right(d.description, pg_catalog.length($3)) OPERATOR(pg_catalog.=) $3)
ORDER BY c.relname
