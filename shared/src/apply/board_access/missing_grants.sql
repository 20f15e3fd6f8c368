-- The relations of a list that this role owns and the board's role cannot read yet. The board's role has this role's name, with
-- `_board` in place of `_writer`.
SELECT board.rolname::pg_catalog.text AS role, n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS relation
FROM pg_catalog.pg_roles board
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) ANY (
    SELECT pg_catalog.to_regclass(name)::pg_catalog.oid FROM pg_catalog.unnest($1) AS name
)
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE CURRENT_USER OPERATOR(pg_catalog.~) '_writer$'
  AND board.rolname::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.regexp_replace(CURRENT_USER::pg_catalog.text, '_writer$', '_board')
  AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
  AND NOT (
      pg_catalog.has_schema_privilege(board.oid, n.oid, 'USAGE')
      AND pg_catalog.has_table_privilege(board.oid, c.oid, 'SELECT')
  )
ORDER BY c.oid
