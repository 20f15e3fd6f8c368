-- The reports: functions, not views, so that they never block schema changes.
-- They can be created before the first event creates the tables and the view of the total.
SET check_function_bodies = off;
CREATE SCHEMA IF NOT EXISTS portfolio;

-- The weight above which a user gets news about a company, between 0 and 1. It is a setting, not an event: an ordinary table,
-- which Millstream does not write.
CREATE TABLE IF NOT EXISTS portfolio.threshold (
    user_id text PRIMARY KEY,
    weight numeric NOT NULL CHECK (weight BETWEEN 0 AND 1)
);

-- The threshold of the users without a row.
CREATE OR REPLACE FUNCTION portfolio.default_threshold()
RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$ SELECT 0.10 $$;

-- All holdings at their current prices. The weight of a company in a portfolio is its share of the gross value:
--
--     |shares × price| ÷ Σ |shares × price|, the sum over the user's companies
--
-- With the net value, a short position would bring the divisor close to zero, and the weights would exceed any threshold.
-- The weights of a portfolio are not negative, and their sum is 1. A company without a price has neither value nor weight, and
-- is not part of the sum. A position that has been closed is not listed.
CREATE OR REPLACE FUNCTION portfolio.weights()
RETURNS TABLE (user_id text, company text, shares numeric, cost numeric, price numeric, value numeric, weight numeric)
LANGUAGE sql STABLE AS $$
    SELECT v.user_id, v.company, v.shares, v.cost, v.price, v.value,
           abs(v.value) / nullif(sum(abs(v.value)) OVER (PARTITION BY v.user_id), 0)
    FROM (
        SELECT h.user_id, h.company, h.shares, h.cost, p.price, h.shares * p.price AS value
        FROM portfolio.holdings h
        LEFT JOIN portfolio.price p ON p.company = h.company
        WHERE h.shares <> 0
    ) v
$$;

-- What a user holds, the greatest weight first.
CREATE OR REPLACE FUNCTION portfolio.holdings(reader text)
RETURNS TABLE (company text, shares numeric, cost numeric, price numeric, value numeric, weight numeric)
LANGUAGE sql STABLE AS $$
    SELECT w.company, w.shares, w.cost, w.price, w.value, w.weight
    FROM portfolio.weights() w
    WHERE w.user_id = reader
    ORDER BY w.weight DESC NULLS LAST, w.company
$$;

-- The news published since a time about the companies that weigh more than the user's threshold, the newest first. It depends on
-- what is stored only, not on the order of arrival: a trade, a price or a correction changes the news of the past as well.
CREATE OR REPLACE FUNCTION portfolio.news_for(reader text, since timestamptz DEFAULT now() - interval '1 day')
RETURNS TABLE (published_at timestamptz, company text, weight numeric, headline text)
LANGUAGE sql STABLE AS $$
    SELECT n.published_at, n.company, w.weight, n.headline
    FROM portfolio.weights() w
    JOIN portfolio.news n ON n.company = w.company AND n.published_at >= since
    WHERE w.user_id = reader
      AND w.weight > coalesce(
          (SELECT t.weight FROM portfolio.threshold t WHERE t.user_id = reader), portfolio.default_threshold())
    ORDER BY n.published_at DESC, n.company, n.news_id
$$;

-- The same for all users at once, for example to send it. It reads all holdings.
CREATE OR REPLACE FUNCTION portfolio.news_for_all(since timestamptz DEFAULT now() - interval '1 day')
RETURNS TABLE (user_id text, published_at timestamptz, company text, weight numeric, headline text)
LANGUAGE sql STABLE AS $$
    SELECT w.user_id, n.published_at, n.company, w.weight, n.headline
    FROM portfolio.weights() w
    LEFT JOIN portfolio.threshold t ON t.user_id = w.user_id
    JOIN portfolio.news n ON n.company = w.company AND n.published_at >= since
    WHERE w.weight > coalesce(t.weight, portfolio.default_threshold())
    ORDER BY w.user_id, n.published_at DESC, n.company, n.news_id
$$;

-- What the board shows a user about themselves. Its role can read nothing of this schema but these two functions, which run with the
-- rights of their owner: the argument is the user whom the board has authenticated. Nobody else may execute them; `maintain` grants
-- them to the board's role if the writer owns them.
CREATE OR REPLACE FUNCTION portfolio.user_holdings(reader text)
RETURNS TABLE (company text, shares numeric, cost numeric, price numeric, value numeric, weight numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.company, h.shares, h.cost, h.price, h.value, h.weight FROM portfolio.holdings(reader) h
$$;

CREATE OR REPLACE FUNCTION portfolio.user_news(reader text)
RETURNS TABLE (published_at timestamptz, company text, weight numeric, headline text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT n.published_at, n.company, n.weight, n.headline FROM portfolio.news_for(reader) n
$$;

REVOKE ALL ON FUNCTION portfolio.user_holdings(text), portfolio.user_news(text) FROM PUBLIC;
