-- Those of the names that a relation or a type already has. PostgreSQL renames a type of arrays that it created itself.
SELECT requested.schema_name, requested.relation_name
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
    AS requested (schema_name, relation_name)
JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) requested.schema_name
WHERE EXISTS (
       SELECT FROM pg_catalog.pg_class c
       WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) requested.relation_name
   )
   OR EXISTS (
       SELECT FROM pg_catalog.pg_type t
       WHERE t.typnamespace OPERATOR(pg_catalog.=) n.oid AND t.typname OPERATOR(pg_catalog.=) requested.relation_name
         AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_type element
             WHERE element.oid OPERATOR(pg_catalog.=) t.typelem AND element.typarray OPERATOR(pg_catalog.=) t.oid
         )
   )
