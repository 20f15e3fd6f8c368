-- Types by the names in declarations, in the same order; all null if the type does not exist.
SELECT t.typname, t.typtype::text, t.typnamespace = 'pg_catalog'::regnamespace AS builtin, t.oid
FROM unnest($1::text[]) WITH ORDINALITY AS requested (name, ordinal)
LEFT JOIN pg_type t ON t.oid = to_regtype(requested.name)
ORDER BY requested.ordinal
