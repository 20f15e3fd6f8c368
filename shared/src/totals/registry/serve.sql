UPDATE millstream.total
SET served = version OPERATOR(pg_catalog.=) $2,
    state = CASE WHEN version OPERATOR(pg_catalog.=) $2 THEN 'ready' ELSE 'removing' END
WHERE name OPERATOR(pg_catalog.=) $1
