-- The requested tables themselves (without bounds) and their range partitions, with bounds in microseconds since
-- 1970 (null: unbounded) and the columns of each unique index without predicate or expression, the primary key first.
-- The session's TimeZone is UTC, so that bounds of type timestamp and date are read correctly.
SELECT parent.oid AS parent, n.nspname, c.relname, c.oid OPERATOR(pg_catalog.=) parent.oid AS itself,
       CASE WHEN pg_catalog.isfinite(bound.lower)
            THEN (extract(epoch FROM bound.lower) OPERATOR(pg_catalog.*) 1000000)::bigint END AS lower,
       CASE WHEN pg_catalog.isfinite(bound.upper)
            THEN (extract(epoch FROM bound.upper) OPERATOR(pg_catalog.*) 1000000)::bigint END AS upper,
       coalesce(bound.text OPERATOR(pg_catalog.=) 'DEFAULT', false) AS is_default,
       ARRAY(
           SELECT pg_catalog.string_agg(a.attname, pg_catalog.chr(1) ORDER BY key.ordinal)
           FROM pg_catalog.pg_index i
           CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[])) WITH ORDINALITY AS key (attnum, ordinal)
           JOIN pg_catalog.pg_attribute a
             ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) key.attnum
           WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid
             AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
             AND key.ordinal OPERATOR(pg_catalog.<=) i.indnkeyatts
           GROUP BY i.indexrelid
           ORDER BY pg_catalog.bool_or(i.indisprimary) DESC, i.indexrelid
       ) AS unique_columns
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS parent (oid)
CROSS JOIN LATERAL (
    SELECT parent.oid
    UNION ALL
    SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) parent.oid AND NOT inhdetachpending
) AS relation (oid)
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) relation.oid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN LATERAL (
    SELECT expression AS text,
           substring(expression FROM 'FROM \(''([^'']*)''\)')::timestamp with time zone AS lower,
           substring(expression FROM 'TO \(''([^'']*)''\)')::timestamp with time zone AS upper
    FROM pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS expression
    WHERE c.oid OPERATOR(pg_catalog.<>) parent.oid
      AND (pg_catalog.starts_with(expression, 'FOR VALUES FROM') OR expression OPERATOR(pg_catalog.=) 'DEFAULT')
) bound ON true
ORDER BY parent.oid, lower NULLS FIRST
