CREATE OR REPLACE FUNCTION millstream.total_failed(name text, version integer, relation text, code text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $total$
BEGIN
    -- Without the message, which may hold values of a row.
    INSERT INTO millstream.total_broken (name, version, relation, sqlstate)
    SELECT $1, $2, $3, $4
    WHERE NOT EXISTS (
        SELECT FROM millstream.total_broken b WHERE b.name = $1 AND b.version = $2 AND b.xid = pg_current_xact_id()
    );
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) IN ('08', '40', '53', '55', '57', '58') THEN RAISE; END IF;
    RAISE WARNING 'total % could not be marked as broken (SQLSTATE %)', $1, SQLSTATE;
END $total$
