-- The tables among $1 and its partitions that a subscription writes to.
SELECT n.nspname, c.relname
FROM pg_catalog.pg_subscription_rel s
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.srrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE s.srrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid
   OR s.srrelid OPERATOR(pg_catalog.=) ANY (ARRAY(
       SELECT tree.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) AS tree
   ))
ORDER BY n.nspname, c.relname
