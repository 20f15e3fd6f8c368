WITH begun AS (
    UPDATE millstream.feed
    SET ready = true, incarnation = pg_catalog.gen_random_uuid(), identity = millstream.feed_identity()
    WHERE schema_name OPERATOR(pg_catalog.=) $1 AND table_name OPERATOR(pg_catalog.=) $2
    RETURNING prefix
)
DELETE FROM millstream.feed_slot s USING begun WHERE s.prefix OPERATOR(pg_catalog.=) begun.prefix
