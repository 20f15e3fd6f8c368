-- The tables of a schema that are range-partitioned by one column, that column, and the table's comment.
SELECT c.relname, a.attname, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_partitioned_table pt ON pt.partrelid = c.oid AND pt.partstrat = 'r' AND pt.partnatts = 1
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = pt.partattrs[0]
WHERE n.nspname = $1 AND NOT c.relispartition
ORDER BY c.relname
