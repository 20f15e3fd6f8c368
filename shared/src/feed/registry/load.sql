SELECT schema_name, table_name, definition, ready, identity
FROM millstream.feed
ORDER BY schema_name, table_name
