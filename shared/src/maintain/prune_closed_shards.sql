-- Deletes shards closed long ago (a stream keeps its records for at most 365 days); a source's newest row stays.
DELETE FROM millstream.freshness old
WHERE old.source = $1 AND old.committed_at < now() - interval '400 days'
  AND EXISTS (SELECT FROM millstream.freshness newer WHERE newer.source = old.source AND newer.committed_at > old.committed_at)
