-- Rejected records of the last 24 hours, by class.
SELECT r.key AS reason, pg_catalog.sum(r.value::bigint)::bigint AS records
FROM millstream.minute m, pg_catalog.jsonb_each_text(m.rejections) r
WHERE m.source OPERATOR(pg_catalog.=) ANY ($1)
  AND m.minute OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '24 hours')
  AND m.rejected OPERATOR(pg_catalog.>) 0
GROUP BY r.key
ORDER BY 1
