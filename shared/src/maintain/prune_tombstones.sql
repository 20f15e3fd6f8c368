-- Deletes tombstones of a schema's tables that are past their retention; in small batches, because writers share the table.
DELETE FROM millstream.tombstone WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
    SELECT ctid FROM millstream.tombstone
    WHERE pg_catalog.starts_with(table_name, $1)
      AND deleted_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $2))
    LIMIT 10000
))
