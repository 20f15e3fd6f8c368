-- Shards closed long ago (a stream keeps its records for 365 days at most); a source's newest row stays.
DELETE FROM millstream.freshness old
WHERE old.source = $1 AND old.committed_at < now() - interval '400 days'
  AND EXISTS (SELECT FROM millstream.freshness newer WHERE newer.source = old.source AND newer.committed_at > old.committed_at)
