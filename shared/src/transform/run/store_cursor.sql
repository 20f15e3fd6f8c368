INSERT INTO millstream.transform_cursor (transform, schema_name, table_name, incarnation, seen, detached)
SELECT $1, f.schema_name, f.table_name, f.incarnation, millstream.feed_snapshot(), ARRAY(
    SELECT t.tgrelid
    FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure($4)::pg_catalog.oid
      AND t.tgrelid OPERATOR(pg_catalog.<>) pg_catalog.to_regclass($5)::pg_catalog.oid
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) t.tgrelid AND NOT i.inhdetachpending
      )
)
FROM millstream.feed f
WHERE f.schema_name OPERATOR(pg_catalog.=) $2 AND f.table_name OPERATOR(pg_catalog.=) $3
ON CONFLICT (transform, schema_name, table_name)
DO UPDATE SET incarnation = excluded.incarnation, seen = excluded.seen, detached = excluded.detached
