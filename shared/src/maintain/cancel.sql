-- Cancels one of Millstream's statements that is waiting for other transactions. It is identified by its text, because a pooler
-- hides the backend.
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE query = $1 AND state = 'active' AND usename = current_user AND datname = current_database()
