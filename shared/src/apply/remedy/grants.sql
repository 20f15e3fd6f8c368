-- The statements that give this role the rights that it is missing to write a table ($3: the privileges) and, if it must be
-- created or changed ($4), to do so: only its owner may alter it.
WITH requested AS (
    SELECT n.oid AS schema_oid, n.nspname, c.oid AS table_oid, c.relname, c.relowner
    FROM pg_catalog.pg_namespace n
    LEFT JOIN pg_catalog.pg_class c
      ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) $2
    WHERE n.nspname OPERATOR(pg_catalog.=) $1
), missing AS (
    SELECT 1 AS ordinal, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user) AS statement
    FROM requested WHERE NOT pg_catalog.has_schema_privilege(schema_oid, 'USAGE')
    UNION ALL
    SELECT 2, pg_catalog.format('GRANT CREATE ON SCHEMA %I TO %I', nspname, current_user)
    FROM requested WHERE $4 AND NOT pg_catalog.has_schema_privilege(schema_oid, 'CREATE')
    UNION ALL
    SELECT 3, pg_catalog.format('ALTER TABLE %I.%I OWNER TO %I', nspname, relname, current_user)
    FROM requested
    WHERE $4 AND table_oid IS NOT NULL AND NOT pg_catalog.pg_has_role(relowner, 'USAGE')
    UNION ALL
    SELECT 4, pg_catalog.format('GRANT %s ON TABLE %I.%I TO %I',
        pg_catalog.string_agg(privilege.name, ', ' ORDER BY privilege.ordinal), nspname, relname, current_user)
    FROM requested
    CROSS JOIN ROWS FROM (pg_catalog.unnest($3::pg_catalog.text[])) WITH ORDINALITY AS privilege (name, ordinal)
    WHERE NOT $4 AND table_oid IS NOT NULL AND NOT pg_catalog.has_table_privilege(table_oid, privilege.name)
    GROUP BY nspname, relname
)
SELECT statement FROM missing ORDER BY ordinal
