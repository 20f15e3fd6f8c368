-- This transaction's snapshot, in which it is itself still open: PostgreSQL leaves it out, so that after another commit it would
-- count as visible, and what it writes from then on would never be new.
CREATE OR REPLACE FUNCTION millstream.feed_snapshot() RETURNS pg_snapshot LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $feed$
DECLARE
    snapshot pg_snapshot := pg_current_snapshot();
    own xid8 := pg_current_xact_id_if_assigned();
    open_xids text;
BEGIN
    IF own IS NULL OR own >= pg_snapshot_xmax(snapshot) THEN
        RETURN snapshot;
    END IF;
    SELECT string_agg(u.xid::text, ',' ORDER BY u.xid) INTO open_xids
    FROM (SELECT pg_snapshot_xip(snapshot) UNION SELECT own) AS u (xid);
    RETURN concat(least(own, pg_snapshot_xmin(snapshot)), ':', pg_snapshot_xmax(snapshot), ':', open_xids)::pg_snapshot;
END $feed$
