-- What the transform that runs in this transaction reads of the table whose row type is `source`: queries for the keys of new
-- entries. Must be called in the transaction of `transform run`, which has locked the table and its log before its snapshot.
--
-- is_full: the log does not tell what is new. It is the first run; or the log has begun anew (a restore, missing triggers); or
-- entries since the last run are not kept any more; or one of them is a reset (TRUNCATE).
CREATE OR REPLACE FUNCTION millstream.feed_reader(source regtype, OUT relation text, OUT entries text, OUT columns text, OUT same_key text,
    OUT seen pg_snapshot, OUT now pg_snapshot, OUT is_full boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $feed$
DECLARE
    source_schema text;
    source_table text;
    feed record;
    transform record;
    cursor_incarnation uuid;
    floor bigint;
    key_columns text;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'what is new is read in REPEATABLE READ only; use `millstream transform run`'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT n.nspname, c.relname INTO source_schema, source_table
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.oid = source AND c.relkind IN ('r', 'p');
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not the row type of a table; write NULL::schema.table', source USING ERRCODE = 'wrong_object_type';
    END IF;
    SELECT t.name, t.reads INTO transform FROM millstream.transform t WHERE t.running = pg_current_xact_id_if_assigned();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no transform runs in this transaction; use `millstream transform run`'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF concat(source_schema, '.', source_table) <> ALL (transform.reads) THEN
        RAISE EXCEPTION 'transform % does not declare that it reads the changes of %.%; add the table to `-- changes:` in its header',
            transform.name, source_schema, source_table USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT f.* INTO feed FROM millstream.feed f WHERE f.schema_name = source_schema AND f.table_name = source_table;
    IF NOT FOUND OR NOT feed.ready THEN
        RAISE EXCEPTION 'the change log of %.% is not complete; run the transform once more', source_schema, source_table
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    relation := format('%I.%I', source_schema, source_table);
    SELECT string_agg(format('key_%s', k.number), ', ' ORDER BY k.number),
        string_agg(format('unnest(l.key_%s)', k.number), ', ' ORDER BY k.number),
        -- The operator of the type, because with this search path that of citext would be that of text.
        string_agg(format('t.%I OPERATOR(%I.=) k.key_%s', k.name, k.operator_schema, k.number), ' AND ' ORDER BY k.number)
    INTO columns, key_columns, same_key
    FROM unnest(feed.key_columns, feed.operator_schemas) WITH ORDINALITY AS k (name, operator_schema, number);
    now := millstream.feed_snapshot();
    -- Those that were open in `seen`, then all that have begun since then.
    entries := format('SELECT u.*, l.n FROM (
            SELECT * FROM millstream.%1$I WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1)))
            UNION ALL SELECT * FROM millstream.%1$I WHERE xid >= pg_snapshot_xmax($1) AND xid < pg_snapshot_xmax($2)
        ) AS l LEFT JOIN LATERAL ROWS FROM (%2$s, unnest(l.version)) AS u (%3$s, version) ON true
        WHERE pg_visible_in_snapshot(l.xid, $2)', feed.prefix, key_columns, columns);
    SELECT c.seen, c.incarnation INTO seen, cursor_incarnation FROM millstream.transform_cursor c
    WHERE c.transform = transform.name AND c.schema_name = source_schema AND c.table_name = source_table;
    EXECUTE format('SELECT last_value FROM millstream.%I', feed.prefix || '_floor') INTO floor;
    is_full := seen IS NULL OR cursor_incarnation <> feed.incarnation OR feed.identity <> millstream.feed_identity()
        OR pg_snapshot_xmax(seen) > pg_snapshot_xmax(now) OR floor >= pg_snapshot_xmin(seen)::text::bigint;
    IF NOT is_full THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM (%s) AS e WHERE e.n = 0)', entries) USING seen, now INTO is_full;
    END IF;
END $feed$
