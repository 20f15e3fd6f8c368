SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(p.relid)), 0)::pg_catalog.int8
FROM (
    SELECT tree.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) AS tree WHERE tree.isleaf
    UNION SELECT pg_catalog.to_regclass($1)
) AS p
