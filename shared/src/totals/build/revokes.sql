-- The grants that default privileges have given to the new view $1.$2, taken back.
SELECT DISTINCT pg_catalog.format(
    'REVOKE ALL ON %I.%I FROM %s', n.nspname, c.relname,
    CASE WHEN acl.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE acl.grantee::pg_catalog.regrole::text END
)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS acl
WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) $2 AND acl.grantee OPERATOR(pg_catalog.<>) c.relowner
