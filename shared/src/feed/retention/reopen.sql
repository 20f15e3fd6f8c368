DELETE FROM millstream.feed_slot WHERE prefix OPERATOR(pg_catalog.=) $1 AND slot OPERATOR(pg_catalog.=) $2
