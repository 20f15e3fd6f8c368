-- The columns of the requested tables, each with the type that its values are written as: a domain's innermost base type.
SELECT n.nspname, c.relname, c.oid, c.reltype AS row_type, rt.typarray AS row_array,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment_of_table,
       -- The partition column, if it is one that holds a time: timestamptz, timestamp or date.
       CASE WHEN pt.partstrat OPERATOR(pg_catalog.=) 'r'
             AND part_base.oid OPERATOR(pg_catalog.=) ANY ('{1184,1114,1082}'::pg_catalog.oid[])
       THEN part.attname END AS partitioned_by_time,
       a.attname, a.atttypid, declared.sql_type,
       -- The type with its schema. Names that `format_type` spells as keywords (`bigint`) do not depend on the search path.
       pg_catalog.concat(
           CASE WHEN pg_catalog.pg_type_is_visible(element.oid)
                 AND pg_catalog.starts_with(declared.sql_type, declared.type_name)
                 AND pg_catalog.substr(declared.sql_type, pg_catalog.length(declared.type_name) OPERATOR(pg_catalog.+) 1, 1)
                     OPERATOR(pg_catalog.=) ANY (ARRAY['', '(', '[']::pg_catalog.text[])
           THEN pg_catalog.concat(pg_catalog.quote_ident(element_schema.nspname), '.') END,
           declared.sql_type
       ) AS cast_type,
       base.typname, base.typtype::pg_catalog.text, base.builtin, base.typmod,
       -- The schema of the operators that the type's indexes use; null: pg_catalog.
       CASE WHEN NOT base.builtin THEN (
           SELECT on_schema.nspname
           FROM pg_catalog.pg_opclass class
           JOIN pg_catalog.pg_amop equal
             ON equal.amopfamily OPERATOR(pg_catalog.=) class.opcfamily AND equal.amopstrategy OPERATOR(pg_catalog.=) 3
            AND equal.amoplefttype OPERATOR(pg_catalog.=) class.opcintype
            AND equal.amoprighttype OPERATOR(pg_catalog.=) class.opcintype
           JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) equal.amopopr AND o.oprname OPERATOR(pg_catalog.=) '='
           JOIN pg_catalog.pg_namespace on_schema ON on_schema.oid OPERATOR(pg_catalog.=) o.oprnamespace
           JOIN pg_catalog.pg_am method ON method.oid OPERATOR(pg_catalog.=) class.opcmethod AND method.amname OPERATOR(pg_catalog.=) 'btree'
           WHERE class.opcdefault AND class.opcintype OPERATOR(pg_catalog.=) base.oid
       ) END AS operator_schema,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity OPERATOR(pg_catalog.=) '' AS required,
       a.attnotnull OR base.of_domain AS guarded,
       EXISTS (
           SELECT FROM pg_catalog.pg_constraint k
           WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.contype OPERATOR(pg_catalog.=) 'c'
       ) AS checked,
       CASE WHEN a.attgenerated OPERATOR(pg_catalog.<>) '' THEN 'expression'
            WHEN a.attidentity OPERATOR(pg_catalog.=) 'a' THEN 'identity' END AS generated,
       pg_catalog.col_description(c.oid, a.attnum) AS comment
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS requested (schema_name, table_name)
JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) requested.schema_name
JOIN pg_catalog.pg_class c
  ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) requested.table_name
 AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'p')
JOIN pg_catalog.pg_type rt ON rt.oid OPERATOR(pg_catalog.=) c.reltype
LEFT JOIN pg_catalog.pg_partitioned_table pt ON pt.partrelid OPERATOR(pg_catalog.=) c.oid
LEFT JOIN pg_catalog.pg_attribute part
  ON part.attrelid OPERATOR(pg_catalog.=) c.oid AND pt.partnatts OPERATOR(pg_catalog.=) 1
 AND part.attnum OPERATOR(pg_catalog.=) pt.partattrs[0] AND part.attnum OPERATOR(pg_catalog.>) 0
LEFT JOIN pg_catalog.pg_type part_type ON part_type.oid OPERATOR(pg_catalog.=) part.atttypid
LEFT JOIN pg_catalog.pg_type part_base ON part_base.oid OPERATOR(pg_catalog.=)
     CASE WHEN part_type.typtype OPERATOR(pg_catalog.=) 'd' THEN part_type.typbasetype ELSE part_type.oid END
JOIN pg_catalog.pg_attribute a
  ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type own ON own.oid OPERATOR(pg_catalog.=) a.atttypid
JOIN pg_catalog.pg_type element
  ON element.oid OPERATOR(pg_catalog.=) CASE
      WHEN own.typelem OPERATOR(pg_catalog.<>) 0 AND own.typcategory OPERATOR(pg_catalog.=) 'A'
       AND own.typtype OPERATOR(pg_catalog.=) 'b' AND own.typstorage OPERATOR(pg_catalog.<>) 'p'
      THEN own.typelem ELSE own.oid END
JOIN pg_catalog.pg_namespace element_schema ON element_schema.oid OPERATOR(pg_catalog.=) element.typnamespace
CROSS JOIN LATERAL (
    SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) AS sql_type, pg_catalog.quote_ident(element.typname) AS type_name
) declared
CROSS JOIN LATERAL (
    WITH RECURSIVE chain AS (
        SELECT t.oid, t.typtype, t.typbasetype, a.atttypmod AS typmod
        FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) a.atttypid
        UNION ALL
        -- A domain has the modifier of its base type; it cannot have its own.
        SELECT t.oid, t.typtype, t.typbasetype, d.typtypmod
        FROM chain
        JOIN pg_catalog.pg_type d ON d.oid OPERATOR(pg_catalog.=) chain.oid
        JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) d.typbasetype
        WHERE chain.typtype OPERATOR(pg_catalog.=) 'd'
    )
    SELECT t.oid, t.typname, t.typtype, chain.typmod,
           t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace AS builtin,
           t.oid OPERATOR(pg_catalog.<>) a.atttypid AS of_domain
    FROM chain JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) chain.oid
    WHERE chain.typtype OPERATOR(pg_catalog.<>) 'd'
) base
ORDER BY c.oid, a.attnum
