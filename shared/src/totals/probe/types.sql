SELECT oid, format_type(oid, NULL) AS name, typcategory, typtype = 'e' AS is_enum, typlen
FROM pg_type
WHERE oid = ANY ($1)
