-- The triggers that the table $1 and its partitions should have and do not: names $2, functions $3, in the same order. $4 is how
-- they fire: 'O' or 'A', as pg_trigger.tgenabled has it.
SELECT n.nspname, c.relname, c.relkind, o.ordinal AS operation,
    CASE WHEN t.oid IS NULL THEN 'missing' WHEN t.tgfoid OPERATOR(pg_catalog.=) o.function THEN 'disabled' ELSE 'replaced' END AS problem
FROM (
    SELECT tree.relid, tree.level FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) AS tree
    -- The tree of a table that is not partitioned is empty.
    UNION SELECT pg_catalog.to_regclass($1), 0
) AS p
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.relid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
CROSS JOIN ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS wanted (name, signature, ordinal)
CROSS JOIN LATERAL (
    SELECT wanted.name, pg_catalog.to_regprocedure(wanted.signature)::pg_catalog.oid AS function, wanted.ordinal
) AS o
LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgname OPERATOR(pg_catalog.=) o.name
WHERE NOT (o.ordinal OPERATOR(pg_catalog.=) 4 AND c.relkind OPERATOR(pg_catalog.=) 'p')
  -- A function that does not exist has no trigger either.
  AND (t.oid IS NULL OR o.function IS NULL OR t.tgfoid OPERATOR(pg_catalog.<>) o.function OR t.tgenabled::pg_catalog.text OPERATOR(pg_catalog.<>) $4)
ORDER BY p.level, n.nspname, c.relname, o.ordinal
