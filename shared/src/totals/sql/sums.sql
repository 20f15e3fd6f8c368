WITH a AS MATERIALIZED ({plain}),
special AS MATERIALIZED (SELECT NOT coalesce(bool_and({finite}), true) AS special FROM a),
-- A second pass over the rows, only if some sum is NaN or infinite: one of the two branches below never runs.
d AS ({exact})
SELECT {groups}, rows{finite_figures} FROM a WHERE NOT (SELECT special FROM special)
UNION ALL
SELECT {a_groups}, a.rows{exact_figures} FROM a JOIN d ON {a_key} = {d_key} WHERE (SELECT special FROM special)
