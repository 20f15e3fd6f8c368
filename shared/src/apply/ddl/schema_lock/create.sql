-- Millstream's schema and the rows that its schema changes lock. Who may not write the table cannot delay them.
CREATE SCHEMA IF NOT EXISTS millstream;
CREATE TABLE IF NOT EXISTS millstream.schema_lock (name text PRIMARY KEY);
COMMENT ON TABLE millstream.schema_lock IS 'Millstream: a row for each table and schema, locked while Millstream changes it'
