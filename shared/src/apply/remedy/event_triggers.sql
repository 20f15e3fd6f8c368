-- The enabled event triggers that may have rejected a schema change: those of the function that raised the error ($1) or, if it
-- is none of theirs, all of them. How each is enabled again is part of the answer.
WITH enabled AS (
    SELECT pg_catalog.format('ALTER EVENT TRIGGER %I DISABLE', evtname) AS disable,
           pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE%s', evtname,
               CASE WHEN evtenabled OPERATOR(pg_catalog.=) 'A' THEN ' ALWAYS' ELSE '' END) AS enable,
           f.proname OPERATOR(pg_catalog.=) $1 AS raised, evtname
    FROM pg_catalog.pg_event_trigger
    JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) evtfoid
    WHERE evtenabled OPERATOR(pg_catalog.=) ANY ('{O,A}'::pg_catalog."char"[])
)
SELECT disable, enable FROM enabled
WHERE raised OR NOT EXISTS (SELECT FROM enabled AS other WHERE other.raised)
ORDER BY evtname
