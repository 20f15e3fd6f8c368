-- Those of the names that a relation or a type already has. PostgreSQL renames a type of arrays that it created itself.
SELECT wanted.schema_name, wanted.relation_name
FROM unnest($1::text[], $2::text[]) AS wanted (schema_name, relation_name)
JOIN pg_namespace n ON n.nspname = wanted.schema_name
WHERE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = wanted.relation_name)
   OR EXISTS (
       SELECT FROM pg_type t
       WHERE t.typnamespace = n.oid AND t.typname = wanted.relation_name
         AND NOT EXISTS (SELECT FROM pg_type element WHERE element.oid = t.typelem AND element.typarray = t.oid)
   )
