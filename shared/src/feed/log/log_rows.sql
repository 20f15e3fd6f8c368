CASE (SELECT least(count(*), {limit} + 1) FROM {transition_table})
    -- An upsert fires the triggers of INSERT and UPDATE, one of them often for nothing.
    WHEN 0 THEN
        NULL;
    WHEN {limit} + 1 THEN
        INSERT INTO {log} (n, {keys}, version)
        SELECT count(*), {arrays}, array_agg(version)
        FROM (
            SELECT r.*, (row_number() OVER () - 1) / {keys_max} AS piece FROM ({rows}) AS r ({keys}, version)
        ) AS pieces
        GROUP BY piece;
    ELSE
        INSERT INTO {log} (n, {keys}, version)
        SELECT count(*), {arrays}, array_agg(version) FROM ({rows}) AS r ({keys}, version);
    END CASE;
