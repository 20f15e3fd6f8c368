-- The tables of a schema that are range-partitioned by one column, that column, and the table's comment.
SELECT c.relname, a.attname, pg_catalog.obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
JOIN pg_catalog.pg_partitioned_table pt
  ON pt.partrelid OPERATOR(pg_catalog.=) c.oid AND pt.partstrat OPERATOR(pg_catalog.=) 'r'
 AND pt.partnatts OPERATOR(pg_catalog.=) 1
JOIN pg_catalog.pg_attribute a
  ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) pt.partattrs[0]
WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND NOT c.relispartition
ORDER BY c.relname
