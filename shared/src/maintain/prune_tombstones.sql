-- Deletes tombstones of a schema's tables that are past their retention; in small batches, because writers share the table.
DELETE FROM millstream.tombstone WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM millstream.tombstone
    WHERE starts_with(table_name, $1) AND deleted_at < now() - make_interval(secs => $2) LIMIT 10000
))
