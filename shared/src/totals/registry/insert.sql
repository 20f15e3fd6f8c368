INSERT INTO millstream.total (name, version, source, schema_name, table_name, state, definition)
VALUES ($1, $2, $3, $4, $5, 'building', $6)
