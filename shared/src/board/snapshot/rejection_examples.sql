-- Of the newest 500 rejections, the newest for each class and table.
SELECT reason, source, relation, detail, position,
       (extract(epoch FROM at) OPERATOR(pg_catalog.*) 1000000)::bigint AS at
FROM (
    SELECT DISTINCT ON (reason, relation) * FROM (
        SELECT * FROM millstream.event
        WHERE kind OPERATOR(pg_catalog.=) 'rejection' AND reason IS NOT NULL ORDER BY id DESC LIMIT 500
    ) newest
    WHERE at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '24 hours')
    ORDER BY reason, relation, id DESC
) examples
ORDER BY id DESC
LIMIT $1
