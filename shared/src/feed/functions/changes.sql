-- The rows of a table that are new or changed since the last committed run of the transform that runs in this transaction, each
-- once; or all rows: see is_full_run. A row is delivered if one of its key's entries is new: the entry of its present state is
-- among them, or an earlier run has read it.
CREATE OR REPLACE FUNCTION millstream.changes(source anyelement) RETURNS SETOF anyelement LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $feed$
DECLARE
    reader record := millstream.feed_reader(pg_typeof(source));
BEGIN
    IF reader.is_full THEN
        RETURN QUERY EXECUTE format('SELECT t.* FROM %s t', reader.relation);
    ELSE
        RETURN QUERY EXECUTE format('SELECT t.* FROM (SELECT DISTINCT %s FROM (%s) AS e) AS k JOIN %s t ON %s',
            reader.columns, reader.entries, reader.relation, reader.same_key) USING reader.seen, reader.now;
    END IF;
END $feed$
