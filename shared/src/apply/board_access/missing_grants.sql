-- The relations and functions of two lists that this role owns and the board's role cannot use yet. The board's role has this role's
-- name, with `_board` in place of `_writer`.
SELECT board.rolname::pg_catalog.text AS role, n.nspname::pg_catalog.text AS schema, object.name, object.is_function,
       pg_catalog.has_schema_privilege(board.oid, n.oid, 'USAGE') AS has_usage
FROM pg_catalog.pg_roles board
CROSS JOIN LATERAL (
    SELECT c.relnamespace AS namespace, c.relname::pg_catalog.text AS name, c.relowner AS owner, false AS is_function,
           pg_catalog.has_table_privilege(board.oid, c.oid, 'SELECT') AS is_granted
    FROM pg_catalog.pg_class c
    WHERE c.oid OPERATOR(pg_catalog.=) ANY (
        SELECT pg_catalog.to_regclass(name)::pg_catalog.oid FROM pg_catalog.unnest($1) AS name
    )
    UNION ALL
    SELECT p.pronamespace, p.proname::pg_catalog.text, p.proowner, true,
           pg_catalog.has_function_privilege(board.oid, p.oid, 'EXECUTE')
    FROM pg_catalog.pg_proc p
    WHERE p.prokind OPERATOR(pg_catalog.=) 'f' AND p.oid OPERATOR(pg_catalog.=) ANY (
        SELECT pg_catalog.to_regprocedure(name)::pg_catalog.oid FROM pg_catalog.unnest($2) AS name
    )
) object
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) object.namespace
WHERE CURRENT_USER OPERATOR(pg_catalog.~) '_writer$'
  AND board.rolname::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.regexp_replace(CURRENT_USER::pg_catalog.text, '_writer$', '_board')
  AND pg_catalog.pg_has_role(object.owner, 'USAGE')
  AND NOT (object.is_granted AND pg_catalog.has_schema_privilege(board.oid, n.oid, 'USAGE'))
ORDER BY object.is_function, n.nspname, object.name
