-- The columns of the table $1.$2. Only pg_catalog is searched, so that types of other schemas are named with theirs.
WITH RECURSIVE own AS (
    SELECT c.oid
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) $2
),
chain AS (
    SELECT a.attnum, a.atttypid AS type
    FROM own JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) own.oid
    WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
    UNION ALL
    -- A domain is compared as its base type.
    SELECT chain.attnum, t.typbasetype
    FROM chain JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) chain.type
    WHERE t.typtype OPERATOR(pg_catalog.=) 'd'
)
SELECT a.attname::pg_catalog.text AS attname, pg_catalog.format_type(a.atttypid, a.atttypmod) AS sql_type,
    CASE WHEN a.attcollation OPERATOR(pg_catalog.<>) declared.typcollation THEN (
        SELECT pg_catalog.concat(pg_catalog.quote_ident(cn.nspname), '.', pg_catalog.quote_ident(co.collname))
        FROM pg_catalog.pg_collation co
        JOIN pg_catalog.pg_namespace cn ON cn.oid OPERATOR(pg_catalog.=) co.collnamespace
        WHERE co.oid OPERATOR(pg_catalog.=) a.attcollation
    ) END AS collation,
    base.typcategory OPERATOR(pg_catalog.=) 'A' AS is_array,
    -- The schema of the operator that the type's indexes use; null: pg_catalog.
    (
        SELECT operator_schema.nspname::pg_catalog.text
        FROM pg_catalog.pg_opclass class
        JOIN pg_catalog.pg_am method ON method.oid OPERATOR(pg_catalog.=) class.opcmethod AND method.amname OPERATOR(pg_catalog.=) 'btree'
        JOIN pg_catalog.pg_amop equal
          ON equal.amopfamily OPERATOR(pg_catalog.=) class.opcfamily AND equal.amopstrategy OPERATOR(pg_catalog.=) 3
         AND equal.amoplefttype OPERATOR(pg_catalog.=) class.opcintype
         AND equal.amoprighttype OPERATOR(pg_catalog.=) class.opcintype
        JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) equal.amopopr AND o.oprname OPERATOR(pg_catalog.=) '='
        JOIN pg_catalog.pg_namespace operator_schema ON operator_schema.oid OPERATOR(pg_catalog.=) o.oprnamespace
        WHERE class.opcdefault AND class.opcintype OPERATOR(pg_catalog.=) base.oid
    ) AS operator_schema,
    -- A partition column that may be NULL cannot be compared, and is no part of the key.
    a.attnotnull AND EXISTS (
        SELECT FROM pg_catalog.pg_partitioned_table p
        WHERE p.partrelid OPERATOR(pg_catalog.=) own.oid
          AND a.attnum OPERATOR(pg_catalog.=) ANY (p.partattrs::pg_catalog.int2[])
    ) AS is_partition_column
FROM own
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) own.oid
JOIN pg_catalog.pg_type declared ON declared.oid OPERATOR(pg_catalog.=) a.atttypid
JOIN chain ON chain.attnum OPERATOR(pg_catalog.=) a.attnum
JOIN pg_catalog.pg_type base
  ON base.oid OPERATOR(pg_catalog.=) chain.type AND base.typtype OPERATOR(pg_catalog.<>) 'd'
WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
ORDER BY a.attnum
