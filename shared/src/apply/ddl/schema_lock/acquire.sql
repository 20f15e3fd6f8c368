-- Waits until no other transaction holds the row, and holds it until this transaction ends.
INSERT INTO millstream.schema_lock (name) VALUES ($1)
-- The table or schema has been changed before.
ON CONFLICT (name) DO UPDATE SET name = excluded.name
