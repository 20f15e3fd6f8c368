-- The virtual generated columns of the table $1.$2 that the indexes of the probe depend on.
SELECT a.attname
FROM pg_depend d
JOIN pg_class i ON i.oid = d.objid AND i.relkind = 'i' AND i.relnamespace = pg_my_temp_schema() AND i.relname LIKE 'millstream\_probe\_%'
JOIN pg_attribute p ON p.attrelid = d.refobjid AND p.attnum = d.refobjsubid
JOIN pg_attribute a ON a.attrelid = to_regclass(format('%I.%I', $1, $2)) AND a.attname = p.attname
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND a.attgenerated = 'v'
LIMIT 1
