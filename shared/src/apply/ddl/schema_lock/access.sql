-- Whether this role may lock the table's rows and, if the table does not exist, whether it may create the table.
SELECT coalesce(
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(t.oid, 'SELECT')
           AND pg_catalog.has_table_privilege(t.oid, 'INSERT') AND pg_catalog.has_table_privilege(t.oid, 'UPDATE'),
           false
       ) AS usable,
       t.oid IS NULL AND CASE
           WHEN n.oid IS NULL THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
           ELSE pg_catalog.has_schema_privilege(n.oid, 'CREATE')
       END AS creatable
FROM (VALUES (true)) AS one_row
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) 'millstream'
LEFT JOIN pg_catalog.pg_class t
  ON t.relnamespace OPERATOR(pg_catalog.=) n.oid AND t.relname OPERATOR(pg_catalog.=) 'schema_lock'
