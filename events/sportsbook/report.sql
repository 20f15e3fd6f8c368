-- The sportsbook's reports: functions, not views, so that they never block schema changes.
-- They can be created before the first event creates the tables and the view of the total.
SET check_function_bodies = off;
CREATE SCHEMA IF NOT EXISTS sportsbook;

-- Bets on each side of each game, up to the minute, from the total `betting`: as fast after a million bets as after ten.
CREATE OR REPLACE FUNCTION sportsbook.betting_totals()
RETURNS TABLE (game_id text, side text, bets bigint, staked numeric, open_liability numeric, paid numeric)
LANGUAGE sql STABLE AS $$
    SELECT game_id, side, rows, staked, open_liability, paid FROM sportsbook.betting ORDER BY game_id, side
$$;

-- Bets by status.
CREATE OR REPLACE FUNCTION sportsbook.bets_by_status()
RETURNS TABLE (status text, bets bigint, staked numeric)
LANGUAGE sql STABLE AS $$
    SELECT status, count(*), sum(stake) FROM sportsbook.bet GROUP BY status ORDER BY status
$$;

-- Latency from Segment's server to the database, over the most recent events.
CREATE OR REPLACE FUNCTION sportsbook.freshness(last_events int DEFAULT 10000)
RETURNS TABLE (median interval, worst interval)
LANGUAGE sql STABLE AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY uuid_ts - received_at), max(uuid_ts - received_at)
    FROM (SELECT uuid_ts, received_at FROM sportsbook.tracks ORDER BY uuid_ts DESC LIMIT last_events) t
$$;
