-- Types by the names in declarations, in the same order; all null if the type does not exist.
SELECT t.typname, t.typtype::text, t.typnamespace = 'pg_catalog'::regnamespace AS builtin, t.oid
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (name, place)
LEFT JOIN pg_type t ON t.oid = to_regtype(wanted.name)
ORDER BY wanted.place
