-- The requested tables themselves (without bounds) and their range partitions, with bounds in microseconds since
-- 1970 (null: unbounded) and the columns of each unique index without predicate or expression, the primary key first.
-- The session's TimeZone is UTC, so that bounds of type timestamp and date are read correctly.
SELECT parent.oid AS parent, n.nspname, c.relname, c.oid = parent.oid AS itself,
       (extract(epoch FROM nullif(nullif(bound.lower, 'infinity'), '-infinity')) * 1000000)::bigint AS lower,
       (extract(epoch FROM nullif(nullif(bound.upper, 'infinity'), '-infinity')) * 1000000)::bigint AS upper,
       coalesce(bound.text = 'DEFAULT', false) AS is_default,
       ARRAY(
           SELECT string_agg(a.attname, chr(1) ORDER BY key.ordinal)
           FROM pg_index i
           CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS key (attnum, ordinal)
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.attnum
           WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
             AND key.ordinal <= i.indnkeyatts
           GROUP BY i.indexrelid
           ORDER BY bool_or(i.indisprimary) DESC, i.indexrelid
       ) AS unique_columns
FROM unnest($1::oid[]) AS parent (oid)
CROSS JOIN LATERAL (
    SELECT parent.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = parent.oid AND NOT inhdetachpending
) AS relation (oid)
JOIN pg_class c ON c.oid = relation.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT expression AS text,
           substring(expression FROM 'FROM \(''([^'']*)''\)')::timestamptz AS lower,
           substring(expression FROM 'TO \(''([^'']*)''\)')::timestamptz AS upper
    FROM pg_get_expr(c.relpartbound, c.oid) AS expression
    WHERE c.oid <> parent.oid AND (expression LIKE 'FOR VALUES FROM%' OR expression = 'DEFAULT')
) bound ON true
ORDER BY parent.oid, lower NULLS FIRST
