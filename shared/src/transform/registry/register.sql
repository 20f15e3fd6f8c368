INSERT INTO millstream.transform (name, target, sources) VALUES ($1, $2, $3)
-- It has run before.
ON CONFLICT (name) DO NOTHING
