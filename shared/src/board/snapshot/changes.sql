-- The newest events that are not rejections.
SELECT e.kind, e.relation, e.detail, (extract(epoch FROM e.at) OPERATOR(pg_catalog.*) 1000000)::bigint AS at
FROM (VALUES ('schema_change'), ('drop'), ('recompute')) AS kinds (kind)
CROSS JOIN LATERAL (
    SELECT * FROM millstream.event WHERE event.kind OPERATOR(pg_catalog.=) kinds.kind ORDER BY id DESC LIMIT $1
) e
ORDER BY e.id DESC
LIMIT $1
