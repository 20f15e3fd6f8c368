-- Tombstones of a schema's tables older than any change that may still arrive; few at a time, as writers share the table.
DELETE FROM millstream.tombstone WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM millstream.tombstone
    WHERE starts_with(table_name, $1) AND deleted_at < now() - make_interval(secs => $2) LIMIT 10000
))
