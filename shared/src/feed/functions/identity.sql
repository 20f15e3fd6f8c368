-- Where the transaction IDs of a log belong: cluster, database and timeline. A dump that is restored elsewhere, a database that is
-- created again, a promoted standby and a point-in-time recovery all change it. The timeline comes from the name of the current
-- WAL file: after a promotion, pg_control_checkpoint() still reports the old one.
CREATE OR REPLACE FUNCTION millstream.feed_identity() RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $feed$
DECLARE
    cluster text := '';
    timeline text := '';
BEGIN
    -- A managed service may permit neither function. The rest still tells databases apart.
    BEGIN
        SELECT s.system_identifier::text INTO cluster FROM pg_control_system() AS s;
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_function THEN
        NULL;
    END;
    BEGIN
        timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_function OR object_not_in_prerequisite_state THEN
        NULL;
    END;
    RETURN concat(cluster, '/', (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), '/', timeline);
END $feed$
