-- Verification velocity: how long users took from created to verified, by the day on which they were created (UTC).
--
-- target: payments.verification_velocity
-- key: day
-- changes: payments.user_created, payments.user_verified
-- every: 5 minutes
WITH users AS (
    -- Those of whom something is new.
    SELECT user_id FROM millstream.changes(NULL::payments.user_created)
    UNION
    SELECT user_id FROM millstream.changes(NULL::payments.user_verified)
),
days AS (
    SELECT DISTINCT date_trunc('day', c.occurred_at) AS day FROM users JOIN payments.user_created c USING (user_id)
),
-- Nobody is verified before the user is created: older events are not read.
verified AS (
    SELECT v.user_id, min(v.occurred_at) AS verified_at
    FROM payments.user_verified v
    WHERE v.occurred_at >= (SELECT min(day) FROM days)
    GROUP BY v.user_id
),
times AS (
    SELECT d.day, v.verified_at, extract(epoch FROM v.verified_at - c.occurred_at)::double precision AS seconds
    FROM days d
    JOIN payments.user_created c ON c.occurred_at >= d.day AND c.occurred_at < d.day + interval '1 day'
    LEFT JOIN verified v USING (user_id)
)
SELECT day::date AS day,
    count(*) AS created,
    count(verified_at) AS verified,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median_seconds,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds) AS p90_seconds
FROM times
GROUP BY day
