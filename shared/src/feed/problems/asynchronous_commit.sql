-- Where synchronous_commit is off: for a role that may write here, this database, or the session and thereby the server.
SELECT CASE
    WHEN s.setrole OPERATOR(pg_catalog.<>) 0 THEN pg_catalog.concat('the role ', s.setrole::pg_catalog.regrole)
    ELSE 'the database'
END AS scope
FROM pg_catalog.pg_db_role_setting s
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS setting (text)
WHERE (s.setdatabase OPERATOR(pg_catalog.=) 0 OR s.setdatabase OPERATOR(pg_catalog.=) (
    SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
)) AND setting.text OPERATOR(pg_catalog.=) 'synchronous_commit=off'
UNION
SELECT 'the server' WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
    AND (SELECT g.source FROM pg_catalog.pg_settings g WHERE g.name OPERATOR(pg_catalog.=) 'synchronous_commit')
        OPERATOR(pg_catalog.<>) ALL (ARRAY['user', 'database', 'database user', 'session'])
ORDER BY 1
