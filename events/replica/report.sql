-- Reports over all sources. They are functions with their SQL as text, not views, so that columns can be added and changed
-- without recreating them.
CREATE SCHEMA IF NOT EXISTS report;

-- Orders and payments by customer tier.
CREATE OR REPLACE FUNCTION report.revenue()
RETURNS TABLE (tier text, customers bigint, orders bigint, ordered numeric, paid numeric)
LANGUAGE sql STABLE AS $$
    -- `tier` is sometimes a string, sometimes a number: the column has the type of the first value, _overflow has the others.
    SELECT coalesce(c.tier::text, c._overflow ->> 'tier', 'none'), count(DISTINCT c.customer_id), count(o.order_no),
           coalesce(sum(o.total), 0), coalesce(sum(o.total) FILTER (WHERE o.paid), 0)
    FROM shop.customers c LEFT JOIN shop.orders o USING (customer_id)
    GROUP BY 1 ORDER BY 1
$$;

-- Items to reorder.
CREATE OR REPLACE FUNCTION report.low_stock(below numeric)
RETURNS TABLE (sku text, quantity numeric, warehouse text)
LANGUAGE sql STABLE AS $$
    SELECT s.sku, s.quantity, s.place ->> 'warehouse' FROM shop.stock s WHERE s.quantity < below ORDER BY s.quantity, s.sku
$$;

-- Customers whose account at the bank is overdrawn.
CREATE OR REPLACE FUNCTION report.overdrawn()
RETURNS TABLE (customer_id text, balance numeric, open_orders bigint)
LANGUAGE sql STABLE AS $$
    SELECT a.customer_id, a.balance, (SELECT count(*) FROM shop.orders o WHERE o.customer_id = a.customer_id AND NOT o.paid)
    FROM bank.account a WHERE a.balance < 0 ORDER BY a.balance
$$;
