-- The keys that were removed from a table since the last committed run of the transform that runs in this transaction, each once:
-- rows in which only the columns of the key are set. In a full run, none: nobody knows which there were. A row that is gone with
-- its partition is not removed, because no entry says so.
CREATE OR REPLACE FUNCTION millstream.removed_keys(source anyelement) RETURNS SETOF anyelement LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $feed$
DECLARE
    reader record := millstream.feed_reader(pg_typeof(source));
    columns text;
BEGIN
    IF reader.is_full THEN
        RETURN;
    END IF;
    -- The columns in their order. Those of a row that does not exist are NULL whatever their types.
    SELECT string_agg(coalesce(
        -- An element of an array has no modifier, which the row's type requires.
        'k.key_' || array_position(f.key_columns, a.attname::text) || '::' || format_type(a.atttypid, a.atttypmod), format('missing.%I', a.attname)
    ), ', ' ORDER BY a.attnum)
    INTO columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN millstream.feed f ON f.schema_name = n.nspname AND f.table_name = c.relname
    WHERE c.oid = reader.relation::regclass;
    RETURN QUERY EXECUTE format('SELECT %1$s
        FROM (SELECT DISTINCT %2$s FROM (%3$s) AS e WHERE e.version IS NULL) AS k LEFT JOIN %4$s AS missing ON false
        WHERE NOT EXISTS (SELECT FROM %4$s t WHERE %5$s)',
        columns, reader.columns, reader.entries, reader.relation, reader.same_key) USING reader.seen, reader.now;
END $feed$
