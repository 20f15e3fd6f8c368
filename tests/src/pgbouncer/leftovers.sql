-- What is left of earlier clients on this backend, and the backend's number; one row with nothing where there is nothing.
SELECT pg_backend_pid(), left_behind.what
FROM (SELECT) AS this
LEFT JOIN (
    -- The pooler itself sets these two for its current client.
    SELECT 'setting ' || name FROM pg_settings
    WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name NOT IN ('application_name', 'client_encoding')
    UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
    UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() AS channel
    UNION ALL SELECT 'temporary schema' WHERE pg_my_temp_schema() <> 0
    UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
) AS left_behind (what) ON true
