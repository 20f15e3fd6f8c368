SELECT name, version, source, schema_name, table_name, state, served, definition
FROM millstream.total
ORDER BY name, version
