CREATE OR REPLACE FUNCTION {function}(pause interval DEFAULT '1 second') RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
-- A plan made while the batch was empty must not scan it later.
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $total$
DECLARE
    folded bigint;
BEGIN
    -- An older snapshot would fail with a serialization error.
    IF current_setting('transaction_isolation') <> 'read committed'
        OR (SELECT folded_at FROM {state}) > clock_timestamp() - pause
    THEN
        RETURN NULL;
    END IF;
    BEGIN
        LOCK TABLE {state} IN EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN NULL;
    END;
    -- The snapshot of this statement is younger than the lock.
    WITH d AS (DELETE FROM {delta} RETURNING {columns}),
    s AS MATERIALIZED (SELECT {groups}, {summed}, count(*) AS deltas FROM d GROUP BY {groups}),
    -- The row of the group, found by its hash; + 0, because min() might otherwise walk along the primary key. If a group
    -- has two rows, only one of them is updated: readers add them up.
    t AS MATERIALIZED (
        SELECT s.*, (
            SELECT min(b.id + 0) FROM {batch} b WHERE b.hash = hash_record_extended({s_key}, 0) AND {b_key} = {s_key}
        ) AS target
        FROM s WHERE {nonzero}
    ),
    u AS (UPDATE {batch} b SET {added} FROM t WHERE b.id = t.target),
    i AS (INSERT INTO {batch} ({columns}) SELECT {columns} FROM t WHERE target IS NULL{keep})
    SELECT sum(s.deltas) INTO folded FROM s;
    UPDATE {state} SET folded_at = clock_timestamp();
    RETURN coalesce(folded, 0);
END $total$
