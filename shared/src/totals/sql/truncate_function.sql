CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off AS $total$
#variable_conflict use_column
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'TRUNCATE of % needs READ COMMITTED: the total % would miss rows that this snapshot does not see',
            TG_RELID::regclass, {total} USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    BEGIN
        -- TRUNCATE has no transition table; its lock keeps the rows as they are.
        EXECUTE format($total_insert${insert}$total_insert$, TG_RELID::regclass);
    EXCEPTION WHEN OTHERS THEN
        IF left(SQLSTATE, 2) IN ('08', '40', '53', '55', '57', '58') THEN RAISE; END IF;
        PERFORM millstream.total_failed({total}, {version}, TG_RELID::regclass::text, SQLSTATE);
    END;
    RETURN NULL;
END $total$
