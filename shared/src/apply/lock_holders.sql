-- The sessions that hold a lock on one of the requested tables or on one of their partitions, the strongest lock first. Locks of
-- readers ($3) delay only schema changes. What another role's session does is null without the rights of pg_read_all_stats.
-- The query itself waits for none of these locks: pg_partition_tree() would.
WITH RECURSIVE tree AS (
    SELECT c.oid
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
        AS requested (schema_name, table_name)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) requested.schema_name
    JOIN pg_catalog.pg_class c
      ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) requested.table_name
    UNION ALL
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) tree.oid
)
SELECT held.pid, activity.application_name, held.mode, pg_catalog.concat_ws('.', n.nspname, c.relname) AS relation, activity.state,
       (extract(epoch FROM activity.xact_start) OPERATOR(pg_catalog.*) 1000000)::bigint AS since
FROM tree
JOIN pg_catalog.pg_locks held
  ON held.locktype OPERATOR(pg_catalog.=) 'relation' AND held.granted
 AND held.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
 AND (held.mode OPERATOR(pg_catalog.<>) 'AccessShareLock' OR $3)
 AND held.relation OPERATOR(pg_catalog.=) tree.oid
JOIN pg_catalog.pg_database d
  ON d.oid OPERATOR(pg_catalog.=) held.database AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) held.relation
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity activity ON activity.pid OPERATOR(pg_catalog.=) held.pid
ORDER BY pg_catalog.array_position(ARRAY[
             'AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock', 'ShareUpdateExclusiveLock',
             'RowExclusiveLock', 'RowShareLock', 'AccessShareLock'
         ]::pg_catalog.text[], held.mode),
         activity.xact_start NULLS LAST, held.pid, c.relname
LIMIT 3
