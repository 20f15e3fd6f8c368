-- Makes pg_catalog the first schema of the search path, for this transaction: statements that change the schema name
-- types without theirs. If the statement contains a check constraint ($1), its expression is looked up, too, and then
-- runs for every row: schemas in which every role may create objects are left out.
WITH path AS (
    SELECT s.ordinal, n.nspname, n.nspname OPERATOR(pg_catalog.~) '^pg_temp_' AS temporary, EXISTS (
        SELECT FROM pg_catalog.aclexplode(n.nspacl) AS granted
        WHERE granted.grantee OPERATOR(pg_catalog.=) 0 AND granted.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
    ) AS open
    FROM ROWS FROM (pg_catalog.unnest(pg_catalog.current_schemas(true))) WITH ORDINALITY AS s (name, ordinal)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) s.name
)
SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog', (
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(nspname), ', ' ORDER BY ordinal)
    FROM path WHERE nspname OPERATOR(pg_catalog.<>) 'pg_catalog' AND NOT temporary AND NOT ($1 AND open)
)), true)
WHERE EXISTS (SELECT FROM path WHERE $1 AND open)
   OR 'pg_catalog' OPERATOR(pg_catalog.<>) (SELECT nspname FROM path WHERE NOT temporary ORDER BY ordinal LIMIT 1)
