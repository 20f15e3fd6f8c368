-- The slot $2 of the log with the prefix $1, whose table is $3. An open or prepared transaction that has written to it holds its lock.
SELECT
    (SELECT l.xid::pg_catalog.text::pg_catalog.int8 FROM {slot} l ORDER BY l.xid DESC LIMIT 1) AS last_xid,
    EXISTS (
        SELECT FROM pg_catalog.pg_locks k
        WHERE k.locktype OPERATOR(pg_catalog.=) 'relation' AND k.relation OPERATOR(pg_catalog.=) pg_catalog.to_regclass($3)::pg_catalog.oid
          AND k.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
          AND k.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock' AND k.granted
    ) AS is_open,
    EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) c.closed_at)::pg_catalog.int8 AS closed_seconds_ago,
    c.last_xid::pg_catalog.text::pg_catalog.int8 AS closed_xid
FROM (VALUES (true)) AS one_row
LEFT JOIN millstream.feed_slot c ON c.prefix OPERATOR(pg_catalog.=) $1 AND c.slot OPERATOR(pg_catalog.=) $2
