-- Those of the tables $1 that are attached as partitions, and not about to be detached.
SELECT inhrelid FROM pg_catalog.pg_inherits
WHERE inhrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[]) AND NOT inhdetachpending
