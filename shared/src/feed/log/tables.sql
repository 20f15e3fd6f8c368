-- n is the number of keys of an entry; 0: whatever was known of the table is void. key_1, …: the keys. version: the hash of the
-- version that the statement wrote, NULL where it removed the key. at is for retention only: the order of entries is (xid, id)
-- within a transaction, and snapshots tell which transactions are new.
-- A primary key, because a publication of all tables (an RDS blue/green deployment) rejects DELETE without one.
CREATE TABLE {log} (
    slot smallint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp())::bigint / {slot_seconds} % {slots})::smallint,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    n integer NOT NULL CHECK (n BETWEEN 0 AND {keys_max}),
    {key_columns}version bigint[],
    PRIMARY KEY (xid, id, slot)
) PARTITION BY LIST (slot);
-- A sequence, because it is read past every snapshot, as TRUNCATE is effective past them.
CREATE SEQUENCE {floor} MINVALUE 0 START 0
