-- Types by the names in declarations, in the same order; all null if the type does not exist.
SELECT t.typname, t.typtype::pg_catalog.text,
       t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace AS builtin, t.oid
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[])) WITH ORDINALITY AS requested (name, ordinal)
LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) pg_catalog.to_regtype(requested.name)
ORDER BY requested.ordinal
