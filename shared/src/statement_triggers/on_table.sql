-- What the names of the triggers of each set on the table $1 begin with, without 'millstream_' and the operation, and whether
-- they fire whatever session_replication_role is.
SELECT pg_catalog.regexp_replace(p.proname, '_insert$', '') AS prefix, t.tgenabled OPERATOR(pg_catalog.=) 'A' AS always
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE t.tgrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid
  AND n.nspname OPERATOR(pg_catalog.=) 'millstream'
  AND p.proname OPERATOR(pg_catalog.~) '_insert$'
  AND t.tgname OPERATOR(pg_catalog.=) pg_catalog.concat('millstream_', p.proname)
ORDER BY 1
