-- The columns of each unique index that identifies the rows of the table $1.$2 or of one of its leaf partitions, the primary key
-- first; a relation with rows and without such an index has one row without columns. Deferrable indexes do not count: they are
-- checked when a statement, or the transaction, is over.
WITH root AS (
    SELECT c.oid, c.relkind, CASE
        WHEN NOT (c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'f']::pg_catalog."char"[])) THEN 'it is not a table'
        WHEN c.relpersistence OPERATOR(pg_catalog.<>) 'p' THEN 'its rows do not survive a crash; make it LOGGED'
        WHEN c.relkind OPERATOR(pg_catalog.=) 'r' AND EXISTS (
            SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid
        ) THEN 'tables inherit from it, whose changes its triggers do not see'
    END AS problem
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) $2
),
relations AS (
    SELECT oid, true AS is_own, problem FROM root
    UNION ALL
    SELECT tree.relid, false, root.problem FROM root CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root.oid) AS tree
    WHERE tree.isleaf AND tree.relid OPERATOR(pg_catalog.<>) root.oid
)
SELECT pg_catalog.concat(n.nspname, '.', c.relname) AS relation, r.is_own, r.problem, key.columns
FROM relations r
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.oid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN LATERAL (
    SELECT i.indisprimary, x.relname AS index_name, ARRAY(
        SELECT a.attname::pg_catalog.text
        FROM ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[])) WITH ORDINALITY AS k (attnum, ordinal)
        JOIN pg_catalog.pg_attribute a
          ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
        WHERE k.ordinal OPERATOR(pg_catalog.<=) i.indnkeyatts
        ORDER BY k.ordinal
    ) AS columns
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid
    WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
          SELECT FROM ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[])) WITH ORDINALITY AS k (attnum, ordinal)
          JOIN pg_catalog.pg_attribute a
            ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
          WHERE k.ordinal OPERATOR(pg_catalog.<=) i.indnkeyatts AND NOT a.attnotnull
      )
) AS key ON true
-- A partitioned table without an index of its own has no rows of its own either.
WHERE key.columns IS NOT NULL OR c.relkind OPERATOR(pg_catalog.<>) 'p'
ORDER BY NOT r.is_own, n.nspname, c.relname, NOT key.indisprimary, key.index_name
