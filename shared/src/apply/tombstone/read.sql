-- The tombstones of the given keys of one table: the key's position in the list, from 1, and the version.
SELECT wanted.place, tombstone.version
FROM unnest($2::bytea[]) WITH ORDINALITY AS wanted (key, place)
JOIN millstream.tombstone ON tombstone.table_name = $1 AND tombstone.key = wanted.key
