-- The requested tables themselves (without bounds) and their partitions: what kind of relation each is, the columns that it is
-- itself partitioned by, and the columns of each unique index without predicate or expression, the primary key first.
-- Partitions by time have bounds in microseconds since 1970 (null: unbounded). No other bound is read as a timestamp: it may
-- be anything. The session's TimeZone is UTC, so that bounds of type timestamp and date are read correctly.
SELECT parent.oid AS parent, n.nspname, c.relname, c.oid OPERATOR(pg_catalog.=) parent.oid AS itself,
       c.relkind::pg_catalog.text AS relkind, own.partstrat::pg_catalog.text AS strategy,
       -- Null if it is not partitioned, or if it is partitioned by an expression.
       CASE WHEN own.partrelid IS NOT NULL AND NOT 0 OPERATOR(pg_catalog.=) ANY (own.partattrs::pg_catalog.int2[]) THEN ARRAY(
           SELECT a.attname::pg_catalog.text
           FROM ROWS FROM (pg_catalog.unnest(own.partattrs::pg_catalog.int2[])) WITH ORDINALITY AS key (attnum, ordinal)
           JOIN pg_catalog.pg_attribute a
             ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) key.attnum
           ORDER BY key.ordinal
       ) END AS partition_columns,
       CASE WHEN pg_catalog.isfinite(bound.lower)
            THEN (extract(epoch FROM bound.lower) OPERATOR(pg_catalog.*) 1000000)::bigint END AS lower,
       CASE WHEN pg_catalog.isfinite(bound.upper)
            THEN (extract(epoch FROM bound.upper) OPERATOR(pg_catalog.*) 1000000)::bigint END AS upper,
       c.oid OPERATOR(pg_catalog.<>) parent.oid AND coalesce(parting.partdefid OPERATOR(pg_catalog.=) c.oid, false) AS is_default,
       -- Rows may be copied straight into a partition that Millstream created, unless the parent does something with them that
       -- the partition does not: statement triggers of its owner, identity columns.
       c.relkind OPERATOR(pg_catalog.=) 'r' AND c.oid OPERATOR(pg_catalog.<>) parent.oid
           AND coalesce(pg_catalog.obj_description(c.oid, 'pg_class') OPERATOR(pg_catalog.~) '(^|\n)Millstream: partition of ', false)
           AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid OPERATOR(pg_catalog.=) parent.oid AND a.attidentity OPERATOR(pg_catalog.<>) '' AND NOT a.attisdropped
           )
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) t.tgfoid
               JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) f.pronamespace
               -- Bit 1 marks a trigger for each row, bit 4 one on INSERT.
               WHERE t.tgrelid OPERATOR(pg_catalog.=) parent.oid AND NOT t.tgisinternal AND s.nspname OPERATOR(pg_catalog.<>) 'millstream'
                 AND (t.tgtype OPERATOR(pg_catalog.&) 5::int2) OPERATOR(pg_catalog.=) 4
           ) AS accepts_copies,
       c.oid AS partition_oid,
       unique_index.columns AS unique_columns, unique_index.deferrable AS deferrable
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS parent (oid)
LEFT JOIN pg_catalog.pg_partitioned_table parting ON parting.partrelid OPERATOR(pg_catalog.=) parent.oid
LEFT JOIN LATERAL (
    SELECT parting.partstrat OPERATOR(pg_catalog.=) 'r' AND parting.partnatts OPERATOR(pg_catalog.=) 1 AS is_time,
           base.oid OPERATOR(pg_catalog.=) 1082 AS is_date
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
    JOIN pg_catalog.pg_type base ON base.oid OPERATOR(pg_catalog.=)
         CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'd' THEN t.typbasetype ELSE t.oid END
    WHERE a.attrelid OPERATOR(pg_catalog.=) parent.oid AND a.attnum OPERATOR(pg_catalog.=) parting.partattrs[0]
      -- timestamptz, timestamp, date
      AND base.oid OPERATOR(pg_catalog.=) ANY ('{1184,1114,1082}'::pg_catalog.oid[])
) time_key ON true
CROSS JOIN LATERAL (
    SELECT parent.oid
    UNION ALL
    SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) parent.oid AND NOT inhdetachpending
) AS relation (oid)
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) relation.oid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_partitioned_table own ON own.partrelid OPERATOR(pg_catalog.=) c.oid
LEFT JOIN LATERAL (
    -- Dates reach further than timestamps: least() keeps them in range. CASE alone keeps other bounds from being cast.
    SELECT CASE WHEN NOT time_key.is_time THEN NULL
                WHEN time_key.is_date THEN pg_catalog.timestamptz(least(lower_text::pg_catalog.date, '294247-01-01'::pg_catalog.date))
                WHEN time_key.is_time THEN lower_text::timestamp with time zone END AS lower,
           CASE WHEN NOT time_key.is_time THEN NULL
                WHEN time_key.is_date THEN pg_catalog.timestamptz(least(upper_text::pg_catalog.date, '294247-01-01'::pg_catalog.date))
                WHEN time_key.is_time THEN upper_text::timestamp with time zone END AS upper
    FROM (
        SELECT substring(expression FROM 'FROM \(''([^'']*)''\)') AS lower_text,
               substring(expression FROM 'TO \(''([^'']*)''\)') AS upper_text
        FROM pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS expression
        WHERE pg_catalog.starts_with(expression, 'FOR VALUES FROM')
    ) AS texts
    WHERE c.oid OPERATOR(pg_catalog.<>) parent.oid
) bound ON true
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.array_agg(i.columns ORDER BY i.indisprimary DESC, i.indexrelid), '{}') AS columns,
           coalesce(pg_catalog.array_agg(NOT i.indimmediate ORDER BY i.indisprimary DESC, i.indexrelid), '{}') AS deferrable
    FROM (
        SELECT i.indexrelid, i.indisprimary, i.indimmediate,
               pg_catalog.string_agg(a.attname, pg_catalog.chr(1) ORDER BY key.ordinal) AS columns
        FROM pg_catalog.pg_index i
        CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[])) WITH ORDINALITY AS key (attnum, ordinal)
        JOIN pg_catalog.pg_attribute a
          ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) key.attnum
        WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid
          AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND key.ordinal OPERATOR(pg_catalog.<=) i.indnkeyatts
        GROUP BY i.indexrelid, i.indisprimary, i.indimmediate
    ) AS i
) AS unique_index
ORDER BY parent.oid, lower NULLS FIRST
