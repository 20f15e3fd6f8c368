-- The roles of a database that Millstream fills: who writes, who owns, who reads. For psql, run by the database's owner (on RDS the
-- master user), once before the functions first connect and again whenever something is to be changed; it does nothing twice.
--
--   WRITER_PASSWORD=… psql -v connections=40 -f infra/roles.sql "host=… dbname=… user=…"
--
--   WRITER_PASSWORD  the password of the functions' secret (environment, so that it stands in no list of processes; the server's
--                    log holds it where log_statement asks for DDL)
--   -v iam=yes       functions log in with IAM tokens instead; straight on RDS a password no longer works then
--   -v connections=N the writer's share of max_connections: MaxConnections of the system's parameters
--   -v prefix=NAME   the roles' common name, by default millstream: roles belong to the cluster, not to one database
--
-- millstream_writer  the functions. Owns what it makes, for only an owner may alter a table: schemas, tables, columns, partitions.
-- millstream_owner   people and migrations: a member of the writer, so that it may all that the writer may. What it makes for the
--                    writer to evolve is made under SET ROLE millstream_writer.
-- millstream_reader  reports: reads every table there is and will be, and writes none.
--
-- People are given a role: GRANT millstream_reader TO alice.
\set ON_ERROR_STOP on
\if :{?prefix}
\else
  \set prefix millstream
\endif
\set writer :prefix _writer
\set owner :prefix _owner
\set reader :prefix _reader
\set password `printf %s "$WRITER_PASSWORD"`
SELECT :'password' <> '' AS has_password \gset

BEGIN;

SELECT format('CREATE ROLE %I %s', name, login)
FROM (VALUES (:'writer', 'LOGIN'), (:'owner', 'NOLOGIN'), (:'reader', 'NOLOGIN')) wanted (name, login)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

GRANT :"writer" TO :"owner";
-- Who runs this is no superuser on RDS, and may only grant what is, or what its own roles own.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') WHERE NOT pg_has_role(:'owner', 'USAGE')
\gexec

\if :has_password
  ALTER ROLE :"writer" PASSWORD :'password';
\endif
\if :{?iam}
  -- The role is RDS's own.
  GRANT rds_iam TO :"writer";
\endif
\if :{?connections}
  ALTER ROLE :"writer" CONNECTION LIMIT :connections;
\endif

-- The writer makes the sources' schemas, and `millstream`, where it remembers deletes.
GRANT CONNECT, CREATE ON DATABASE :"DBNAME" TO :"writer";
GRANT CONNECT ON DATABASE :"DBNAME" TO :"reader";

-- What will be made: readers read it, whoever of the two makes it.
ALTER DEFAULT PRIVILEGES FOR ROLE :"writer", :"owner" GRANT USAGE ON SCHEMAS TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"writer", :"owner" GRANT SELECT ON TABLES TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"writer", :"owner" GRANT SELECT ON SEQUENCES TO :"reader";
-- And what an owner makes the writer may fill (schema_mode = "fixed"), if it was not made under SET ROLE.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT USAGE ON SCHEMAS TO :"writer";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"writer";

-- What is there already.
SELECT format('GRANT USAGE ON SCHEMA %1$I TO %2$I; GRANT SELECT ON ALL TABLES IN SCHEMA %1$I TO %2$I', nspname, :'reader')
FROM pg_namespace WHERE nspowner IN (SELECT oid FROM pg_roles WHERE rolname IN (:'writer', :'owner'))
\gexec

COMMIT;
