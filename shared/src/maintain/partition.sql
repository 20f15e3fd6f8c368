-- The kind of a partition's relation, and its comment.
SELECT c.relkind IN ('r', 'p') AS is_table, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
