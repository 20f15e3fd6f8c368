INSERT INTO millstream.feed (schema_name, table_name, prefix, key_columns, operator_schemas, definition)
VALUES ($1, $2, $3, $4, $5, $6)
-- The key or the version has changed: the log is not complete until its next incarnation.
ON CONFLICT (schema_name, table_name) DO UPDATE SET key_columns = excluded.key_columns,
    operator_schemas = excluded.operator_schemas, definition = excluded.definition, ready = false
