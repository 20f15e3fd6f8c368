UPDATE millstream.total SET state = 'removing', served = false
WHERE name OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2
