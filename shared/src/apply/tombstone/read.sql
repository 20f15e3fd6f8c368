-- The tombstones of the given keys of one table: the position of the key in the list, from 1, and the version.
SELECT requested.ordinal, tombstone.version
FROM unnest($2::bytea[]) WITH ORDINALITY AS requested (key, ordinal)
JOIN millstream.tombstone ON tombstone.table_name = $1 AND tombstone.key = requested.key
