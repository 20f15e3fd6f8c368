-- A number for each table that changes whenever a column is added, dropped, renamed, retyped or set NOT NULL.
SELECT a.attrelid AS oid,
       sum(hashtextextended(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull), 0))::text AS fingerprint
FROM pg_attribute a
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY a.attrelid
