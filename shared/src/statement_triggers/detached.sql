SELECT n.nspname, c.relname
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE t.tgfoid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure($1)::pg_catalog.oid
  AND t.tgrelid OPERATOR(pg_catalog.<>) pg_catalog.to_regclass($2)::pg_catalog.oid
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) t.tgrelid AND NOT i.inhdetachpending
  )
ORDER BY n.nspname, c.relname
