-- Cancels a statement of ours that others keep waiting. It is known by its text: a pooler tells nobody which backend has it.
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE query = $1 AND state = 'active' AND usename = current_user AND datname = current_database()
