-- Freshness of a source's shards, most recent commit first; times in microseconds since 1970, by the server's clock.
SELECT stream, shard,
       (extract(epoch FROM committed_at) OPERATOR(pg_catalog.*) 1000000)::bigint AS committed_at,
       (extract(epoch FROM arrived_at) OPERATOR(pg_catalog.*) 1000000)::bigint AS arrived_at
FROM millstream.freshness
WHERE source OPERATOR(pg_catalog.=) $1
ORDER BY committed_at DESC, stream, shard
