-- Deletes shards closed long ago (a stream keeps its records for at most 365 days); a source's newest row stays.
DELETE FROM millstream.freshness old
WHERE old.source OPERATOR(pg_catalog.=) $1
  AND old.committed_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '400 days')
  AND EXISTS (
      SELECT FROM millstream.freshness newer
      WHERE newer.source OPERATOR(pg_catalog.=) old.source
        AND newer.committed_at OPERATOR(pg_catalog.>) old.committed_at
  )
