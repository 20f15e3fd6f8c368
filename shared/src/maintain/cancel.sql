-- Cancels one of Millstream's statements that is waiting for other transactions. It is identified by its text, because a pooler
-- hides the backend.
SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE query OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'active'
  AND usename OPERATOR(pg_catalog.=) current_user AND datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
