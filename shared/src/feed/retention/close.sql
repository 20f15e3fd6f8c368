INSERT INTO millstream.feed_slot (prefix, slot, last_xid) VALUES ($1, $2, $3::pg_catalog.text::pg_catalog.xid8)
-- It was closed before, and used again.
ON CONFLICT (prefix, slot) DO UPDATE SET last_xid = excluded.last_xid, closed_at = pg_catalog.clock_timestamp()
