-- Deletes counters older than eight days: a board shows at most the last day, and a week is worth comparing.
DELETE FROM millstream.minute WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
    SELECT ctid FROM millstream.minute
    WHERE minute OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '8 days')
    LIMIT 10000
))
