LOCK TABLE {state} IN EXCLUSIVE MODE;
WITH twice AS (SELECT hash FROM {batch} GROUP BY hash HAVING count(*) > 1),
removed AS (DELETE FROM {batch} b USING twice WHERE b.hash = twice.hash RETURNING b.*)
INSERT INTO {batch} ({columns}) SELECT {groups}, {summed} FROM removed GROUP BY {groups};
DELETE FROM {batch} WHERE NOT ({nonzero})
