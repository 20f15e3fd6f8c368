-- Whether changes() returns all rows of a table to the transform that runs in this transaction, and removed_keys() none.
CREATE OR REPLACE FUNCTION millstream.is_full_run(source anyelement) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $feed$
DECLARE
    reader record := millstream.feed_reader(pg_typeof(source));
BEGIN
    RETURN reader.is_full;
END $feed$
