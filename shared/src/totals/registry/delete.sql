WITH marks AS (
    DELETE FROM millstream.total_broken WHERE name OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2
)
DELETE FROM millstream.total WHERE name OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2
