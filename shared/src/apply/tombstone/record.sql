-- A newer tombstone replaces an older one. Sorted, so that all writers take their locks in the same order.
INSERT INTO millstream.tombstone (table_name, key, version)
SELECT $1, deleted.key, deleted.version
FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.bytea[]), pg_catalog.unnest($3::pg_catalog.text[])) AS deleted (key, version)
ORDER BY deleted.key
ON CONFLICT (table_name, key) DO UPDATE SET version = excluded.version, deleted_at = excluded.deleted_at
WHERE tombstone.version OPERATOR(pg_catalog.<) excluded.version
