-- The tombstones of the given keys of one table: the position of the key in the list, from 1, and the version.
SELECT requested.ordinal, tombstone.version
FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.bytea[])) WITH ORDINALITY AS requested (key, ordinal)
JOIN millstream.tombstone
  ON tombstone.table_name OPERATOR(pg_catalog.=) $1 AND tombstone.key OPERATOR(pg_catalog.=) requested.key
