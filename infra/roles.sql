-- The roles of a database that Millstream loads: writer, owner, reader, board. Run it in psql as the database's owner (on RDS, the
-- master user), once before the functions first connect and again to change something; running it twice is safe.
--
--   WRITER_PASSWORD=… psql -v connections=40 -f infra/roles.sql "host=… dbname=… user=…"
--
--   WRITER_PASSWORD  the password in the functions' secret (an environment variable, so that process lists do not show it; the
--                    server log contains it if log_statement includes DDL)
--   BOARD_PASSWORD   the password in the board's secret, likewise
--   -v iam=yes       functions log in with IAM tokens instead; on RDS itself a password then no longer works
--   -v connections=N the writer's connection limit: MaxConnections in the system's parameters
--   -v board_connections=N  the board's connection limit: BoardConcurrency in the system's parameters (default: 4)
--   -v prefix=NAME   prefix of the role names (default: millstream); roles belong to the cluster, not to one database
--
-- millstream_writer  the functions. Owns the schemas and tables that it creates, because only an owner can alter a table.
-- millstream_owner   administrators and migrations: a member of the writer, with all its privileges. Create tables that the
--                    writer is to evolve under SET ROLE millstream_writer.
-- millstream_reader  reports: reads all present and future tables, and writes none.
--
-- millstream_board   the board: reads recent activity and the configured totals, and nothing else. `maintain` grants it what is
--                    created later.
--
-- Roles without a grant lose what PostgreSQL gives to everyone: CONNECT and TEMPORARY on the database, and CREATE in the schema
-- `public` (PostgreSQL 14, and databases upgraded from it). The four roles search for names in pg_catalog only, so that nobody's
-- functions and operators take the place of PostgreSQL's. A search_path that you set for a role in this database is kept: see
-- docs/deploy.md.
--
-- Grant a role to each user: GRANT millstream_reader TO alice.
\set ON_ERROR_STOP on
-- Nobody's functions and operators take the place of PostgreSQL's in this script.
SET search_path = pg_catalog, pg_temp;
\if :{?prefix}
\else
  \set prefix millstream
\endif
\set writer :prefix _writer
\set owner :prefix _owner
\set reader :prefix _reader
\set board :prefix _board
\set password `printf %s "$WRITER_PASSWORD"`
\set board_password `printf %s "$BOARD_PASSWORD"`
SELECT :'password' <> '' AS has_password, :'board_password' <> '' AS has_board_password \gset
\if :{?board_connections}
\else
  \set board_connections 4
\endif

BEGIN;

SELECT format('CREATE ROLE %I %s', name, login)
FROM (VALUES (:'writer', 'LOGIN'), (:'owner', 'NOLOGIN'), (:'reader', 'NOLOGIN'), (:'board', 'LOGIN')) wanted (name, login)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

GRANT :"writer" TO :"owner";
-- On RDS the current user is not a superuser: to act for these roles it must be a member of them.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') WHERE NOT pg_has_role(:'owner', 'USAGE')
\gexec

\if :has_password
  ALTER ROLE :"writer" PASSWORD :'password';
\endif
\if :has_board_password
  ALTER ROLE :"board" PASSWORD :'board_password';
\endif
\if :{?iam}
  -- rds_iam is provided by RDS.
  GRANT rds_iam TO :"writer", :"board";
\endif
ALTER ROLE :"board" CONNECTION LIMIT :board_connections;
\if :{?connections}
  ALTER ROLE :"writer" CONNECTION LIMIT :connections;
\endif

-- The writer creates the sources' schemas and `millstream`, which holds the tombstones, the freshness, the activity, the totals, the
-- change logs, the transforms and the locks of schema changes. Totals and transforms need TEMPORARY: expressions are tried on a temporary
-- table, a recompute sums into one, and what the query of a transform returns is first stored in one.
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE :"DBNAME" TO :"writer";
GRANT CONNECT ON DATABASE :"DBNAME" TO :"reader", :"board";

-- What every role has by default.
REVOKE CONNECT, TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
SELECT 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'
FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'public' AND grantee = 0 AND privilege_type = 'CREATE'
\gexec
SELECT format('ALTER ROLE %I IN DATABASE %I SET search_path = pg_catalog', rolname, current_database())
FROM pg_roles
WHERE rolname IN (:'writer', :'owner', :'reader', :'board') AND NOT EXISTS (
    SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setrole = pg_roles.oid AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND setting LIKE 'search_path=%'
)
\gexec

-- Whatever the board sends, it writes nothing and stops soon.
SELECT format('ALTER ROLE %I IN DATABASE %I SET %s', :'board', current_database(), setting)
FROM (VALUES ('default_transaction_read_only = on'), ('statement_timeout = ''5s''')) settings (setting)
\gexec

-- Future objects: readers can read them, whichever of the two roles creates them.
ALTER DEFAULT PRIVILEGES FOR ROLE :"writer", :"owner" GRANT USAGE ON SCHEMAS TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"writer", :"owner" GRANT SELECT ON TABLES TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"writer", :"owner" GRANT SELECT ON SEQUENCES TO :"reader";
-- The writer can fill tables that an owner creates without SET ROLE (schema_mode = "fixed").
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT USAGE ON SCHEMAS TO :"writer";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"writer";

-- Existing objects.
SELECT format('GRANT USAGE ON SCHEMA %1$I TO %2$I; GRANT SELECT ON ALL TABLES IN SCHEMA %1$I TO %2$I', nspname, :'reader')
FROM pg_namespace WHERE nspowner IN (SELECT oid FROM pg_roles WHERE rolname IN (:'writer', :'owner'))
\gexec

-- What exists of the board's tables, which the writer owns.
SELECT format('GRANT USAGE ON SCHEMA %1$I TO %3$I; GRANT SELECT ON %1$I.%2$I TO %3$I', nspname, relname, :'board')
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = 'millstream' AND relname IN ('minute', 'event', 'total', 'total_broken', 'transform')
  AND relowner IN (SELECT oid FROM pg_roles WHERE rolname IN (:'writer', :'owner'))
\gexec

COMMIT;
