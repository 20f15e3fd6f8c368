CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $feed$
#variable_conflict use_column
BEGIN
    {body}
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- The statement fails, and its writer retries it.
    IF left(SQLSTATE, 2) IN ('08', '40', '53', '55', '57', '58') THEN RAISE; END IF;
    -- The key has another name or type: readers start over.
    BEGIN
        INSERT INTO {log} (n) VALUES (0);
    EXCEPTION WHEN undefined_table OR undefined_column THEN
        -- Without its log, the log begins anew with the next reader.
        RAISE WARNING 'the change log of % is missing (SQLSTATE %)', TG_RELID::regclass, SQLSTATE;
    END;
    RETURN NULL;
END $feed$
