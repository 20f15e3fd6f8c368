SELECT
    -- Before the first ANALYZE or VACUUM there is no estimate.
    (SELECT CASE WHEN c.reltuples OPERATOR(pg_catalog.>) 0 THEN c.reltuples::pg_catalog.int8
            ELSE (SELECT pg_catalog.count(*) FROM (SELECT FROM {batch_rows} LIMIT {pending_max}) AS groups) END
     FROM pg_catalog.pg_class c
     WHERE c.oid OPERATOR(pg_catalog.=) {batch}::pg_catalog.regclass::pg_catalog.oid) AS groups,
    (SELECT pg_catalog.count(*) FROM (SELECT FROM {delta} LIMIT {pending_max}) AS pending) AS pending,
    (SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) folded_at)::pg_catalog.float8
     FROM {state} WHERE folded_at OPERATOR(pg_catalog.>) '-infinity') AS folded_seconds_ago,
    EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) t.recomputed_at)::pg_catalog.float8 AS recomputed_seconds_ago,
    t.recompute_seconds,
    t.off_by,
    (SELECT pg_catalog.count(*) FROM millstream.total_broken b
     WHERE b.name OPERATOR(pg_catalog.=) t.name AND b.version OPERATOR(pg_catalog.=) t.version) AS broken,
    (SELECT pg_catalog.concat(b.relation, ' [SQLSTATE ', b.sqlstate, ']') FROM millstream.total_broken b
     WHERE b.name OPERATOR(pg_catalog.=) t.name AND b.version OPERATOR(pg_catalog.=) t.version
     ORDER BY b.id DESC LIMIT 1) AS failure,
    (SELECT EXTRACT(epoch FROM pg_catalog.max(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.xact_start))::pg_catalog.float8
     FROM pg_catalog.pg_stat_activity a
     WHERE a.backend_xmin IS NOT NULL AND a.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS oldest_snapshot_seconds
FROM millstream.total t
WHERE t.name OPERATOR(pg_catalog.=) {name} AND t.version OPERATOR(pg_catalog.=) {version}
