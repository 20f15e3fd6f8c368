-- A newer tombstone replaces an older one; an older one changes nothing. Sorted, for every writer takes its locks in one order.
INSERT INTO millstream.tombstone (table_name, key, version)
SELECT $1, dead.key, dead.version FROM unnest($2::bytea[], $3::text[]) AS dead (key, version) ORDER BY dead.key
ON CONFLICT (table_name, key) DO UPDATE SET version = excluded.version, deleted_at = excluded.deleted_at
WHERE tombstone.version < excluded.version
