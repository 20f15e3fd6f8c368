SELECT n.nspname, c.relname, t.tgname
FROM pg_catalog.unnest($1) AS f (signature)
JOIN pg_catalog.pg_trigger t ON t.tgfoid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(f.signature)::pg_catalog.oid
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY n.nspname, c.relname, t.tgname
