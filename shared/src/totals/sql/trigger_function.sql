CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
-- The text of a float depends on extra_float_digits.
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off AS $total$
#variable_conflict use_column
BEGIN
    {insert};
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- The statement fails, and its writer retries it.
    IF left(SQLSTATE, 2) IN ('08', '40', '53', '55', '57', '58') THEN RAISE; END IF;
    PERFORM millstream.total_failed({total}, {version}, TG_RELID::regclass::text, SQLSTATE);
    RETURN NULL;
END $total$
