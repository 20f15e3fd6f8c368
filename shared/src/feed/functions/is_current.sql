-- A row if the function $1 exists with the comment $2.
SELECT FROM pg_catalog.pg_proc p
WHERE p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure($1)::pg_catalog.oid
  AND pg_catalog.obj_description(p.oid, 'pg_proc') OPERATOR(pg_catalog.=) $2
