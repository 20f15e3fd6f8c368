-- Deletes events older than 30 days and, if a source rejects everything, all but the newest 100,000 rejections.
DELETE FROM millstream.event WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
    SELECT ctid FROM millstream.event
    WHERE at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '30 days')
       OR kind OPERATOR(pg_catalog.=) 'rejection' AND id OPERATOR(pg_catalog.<) (
           SELECT kept.id FROM millstream.event kept WHERE kept.kind OPERATOR(pg_catalog.=) 'rejection'
           ORDER BY kept.id DESC OFFSET 99999 LIMIT 1
       )
    LIMIT 10000
))
