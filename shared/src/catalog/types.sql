-- Types by what a declaration calls them, in its order; without a row's values where there is no such type.
SELECT t.typname, t.typtype::text, t.typnamespace = 'pg_catalog'::regnamespace AS builtin, t.oid
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (name, place)
LEFT JOIN pg_type t ON t.oid = to_regtype(wanted.name)
ORDER BY wanted.place
