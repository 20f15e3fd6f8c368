-- The columns of the requested tables, each with the type that its values are written as: a domain's innermost base type.
SELECT n.nspname, c.relname, c.oid, c.reltype AS row_type, rt.typarray AS row_array, obj_description(c.oid, 'pg_class') AS comment_of_table,
       pt.partstrat::text AS strategy, part.attname AS partitioned_by,
       a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod) AS sql_type,
       base.typname, base.typtype::text, base.builtin, base.typmod,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required,
       a.attnotnull OR base.of_domain AS guarded,
       EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c') AS checked,
       a.attgenerated <> '' OR a.attidentity = 'a' AS generated,
       col_description(c.oid, a.attnum) AS comment
FROM unnest($1::text[], $2::text[]) AS wanted (schema_name, table_name)
JOIN pg_namespace n ON n.nspname = wanted.schema_name
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.table_name AND c.relkind IN ('r', 'p')
JOIN pg_type rt ON rt.oid = c.reltype
LEFT JOIN pg_partitioned_table pt ON pt.partrelid = c.oid
LEFT JOIN pg_attribute part ON part.attrelid = c.oid AND pt.partnatts = 1 AND part.attnum = pt.partattrs[0] AND part.attnum > 0
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (
    WITH RECURSIVE chain AS (
        SELECT t.oid, t.typtype, t.typbasetype, a.atttypmod AS typmod
        FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        -- A domain has the modifier of its base type; it cannot have its own.
        SELECT t.oid, t.typtype, t.typbasetype, d.typtypmod
        FROM chain JOIN pg_type d ON d.oid = chain.oid JOIN pg_type t ON t.oid = d.typbasetype
        WHERE chain.typtype = 'd'
    )
    SELECT t.typname, t.typtype, t.typnamespace = 'pg_catalog'::regnamespace AS builtin, chain.typmod, t.oid <> a.atttypid AS of_domain
    FROM chain JOIN pg_type t ON t.oid = chain.oid WHERE chain.typtype <> 'd'
) base
ORDER BY c.oid, a.attnum
