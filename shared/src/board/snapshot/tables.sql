-- The tables of some schemas, with estimates of their rows and sizes. `relpages` costs nothing and waits for no lock;
-- pg_total_relation_size opens every partition. Partitions that begin in the future are found by their notes.
WITH leaf AS (
    SELECT coalesce(i.inhparent, c.oid) AS root, i.inhparent IS NOT NULL AS is_partition, c.oid, c.relkind, c.relpages, c.reltuples,
           c.reltoastrelid
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) c.oid
    WHERE n.nspname OPERATOR(pg_catalog.=) ANY ($1) AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog."char"[])
      AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR NOT c.relispartition)
), size AS (
    SELECT leaf.root,
           pg_catalog.count(*) FILTER (WHERE leaf.is_partition) AS partitions,
           pg_catalog.sum(
               -- Once analyzed, a partitioned table has the number of rows of its partitions.
               CASE WHEN leaf.relkind OPERATOR(pg_catalog.=) 'p' THEN 0
                    WHEN leaf.reltuples OPERATOR(pg_catalog.>) 0 THEN leaf.reltuples::bigint
                    ELSE pg_catalog.pg_stat_get_live_tuples(leaf.oid) END
           ) AS rows,
           pg_catalog.sum(
               leaf.relpages::bigint OPERATOR(pg_catalog.+) coalesce(toast.relpages, 0)::bigint
                   OPERATOR(pg_catalog.+) coalesce(own.pages, 0)::bigint
           ) AS pages,
           pg_catalog.sum(leaf.relpages) AS heap_pages,
           pg_catalog.count(*) FILTER (
               WHERE pg_catalog.split_part(note.description, ' [', 2) OPERATOR(pg_catalog.>) clock.text
           ) AS ahead
    FROM leaf
    CROSS JOIN (
        SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') AS text
    ) clock
    LEFT JOIN pg_catalog.pg_class toast ON toast.oid OPERATOR(pg_catalog.=) leaf.reltoastrelid
    LEFT JOIN LATERAL (
        SELECT pg_catalog.sum(x.relpages) AS pages FROM pg_catalog.pg_index d
        JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) d.indexrelid
        WHERE d.indrelid OPERATOR(pg_catalog.=) leaf.oid
    ) own ON true
    LEFT JOIN pg_catalog.pg_description note
      ON note.objoid OPERATOR(pg_catalog.=) leaf.oid AND note.objsubid OPERATOR(pg_catalog.=) 0
     AND note.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND leaf.is_partition
    GROUP BY leaf.root
)
SELECT n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name, coalesce(size.rows, 0)::bigint AS rows,
       -- Before the first VACUUM or ANALYZE, a table with rows has no pages.
       CASE WHEN size.heap_pages OPERATOR(pg_catalog.>) 0 OR size.rows OPERATOR(pg_catalog.=) 0
            THEN (size.pages OPERATOR(pg_catalog.*) pg_catalog.current_setting('block_size')::bigint)::bigint END AS bytes,
       CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'p' THEN size.partitions END AS partitions,
       size.ahead AS partitions_ahead
FROM size
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) size.root
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
-- Partitions that were detached but not yet dropped are not tables.
WHERE coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') OPERATOR(pg_catalog.!~) '(?n)^Millstream: partition of '
ORDER BY size.pages DESC, 1, 2
LIMIT 100
