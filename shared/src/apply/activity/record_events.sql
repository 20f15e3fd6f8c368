-- Adds events. The commit does not wait for the disk; the setting ends with the statement.
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
INSERT INTO millstream.event (at, source, kind, relation, reason, records, detail, position)
SELECT pg_catalog.clock_timestamp(), e.source, e.kind, e.relation, e.reason, e.records, e.detail, e.position
FROM setting, ROWS FROM (
    pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
    pg_catalog.unnest($6), pg_catalog.unnest($7)
) AS e (source, kind, relation, reason, records, detail, position)
