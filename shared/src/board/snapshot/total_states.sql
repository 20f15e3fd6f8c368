-- The newest version of each total that is not being removed. The numbers of groups and deltas are estimates, for which the
-- role needs no privilege on a total's own tables.
SELECT DISTINCT ON (t.name) t.name,
       t.served AND t.state OPERATOR(pg_catalog.=) 'ready' AS is_ready,
       (
           SELECT pg_catalog.count(*) FROM millstream.total_broken b
           WHERE b.name OPERATOR(pg_catalog.=) t.name AND b.version OPERATOR(pg_catalog.=) t.version
       ) AS broken,
       (extract(epoch FROM t.recomputed_at) OPERATOR(pg_catalog.*) 1000000)::bigint AS recomputed_at,
       t.recompute_seconds, t.off_by,
       coalesce((
           SELECT CASE WHEN c.reltuples OPERATOR(pg_catalog.>) 0 THEN c.reltuples::bigint ELSE pg_catalog.pg_stat_get_live_tuples(c.oid) END
           FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=)
               pg_catalog.to_regclass(pg_catalog.format('millstream.%I', pg_catalog.concat(t.name, '_v', t.version, '_batch')))
       ), 0)::bigint AS groups,
       coalesce((
           SELECT pg_catalog.pg_stat_get_live_tuples(c.oid)
           FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=)
               pg_catalog.to_regclass(pg_catalog.format('millstream.%I', pg_catalog.concat(t.name, '_v', t.version, '_delta')))
       ), 0)::bigint AS pending
FROM millstream.total t
WHERE t.state OPERATOR(pg_catalog.<>) 'removing'
ORDER BY t.name, t.served DESC, t.version DESC
