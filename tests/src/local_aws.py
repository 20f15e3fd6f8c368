"""moto's server, with Kinesis streams that reshard as they should, bear load, and are read while they are written.

In moto 5.2.5 a shard that was split or merged continues to accept records, and its old records are put again: into itself
by a split, into the child by a merge. In Kinesis they stay where they are, and further ones go to the children. Also, each
record put, and each look at a shard, costs moto a walk over all that the shard has.
"""

import threading
from collections import OrderedDict
from hashlib import md5
from itertools import islice

from moto.kinesis.models import Shard, Stream
from moto.server import main

GET_RECORDS_MAX = 10_000

# The server has a thread a request; moto's shards break where one is read while another puts a record into it.
ONE_AT_A_TIME = threading.RLock()


def alone(method):
    def called(this, *arguments, **named):
        with ONE_AT_A_TIME:
            return method(this, *arguments, **named)

    return called


def leaving_records(reshard):
    def resharded(stream, *arguments, **named):
        shards = list(stream.shards.values())
        records = [shard.records for shard in shards]
        for shard in shards:
            shard.records = OrderedDict()
        try:
            return reshard(stream, *arguments, **named)
        finally:
            for shard, kept in zip(shards, records):
                shard.records = kept

    return alone(resharded)


def open_shard_for_key(stream, partition_key, explicit_hash_key):
    hash_key = int(explicit_hash_key) if explicit_hash_key else int(md5(partition_key.encode()).hexdigest(), 16)
    shards = stream.shards.values()
    return next(shard for shard in shards if shard.is_open and shard.starting_hash <= hash_key <= shard.ending_hash)


def last_sequence_number(shard):
    return next(reversed(shard.records), 0)


def records_after(shard, sequence_number, limit):
    """The records, the last one's number, and how far it lags; moto numbers a shard's records from 1."""
    # A place before the first: the iterator AT it is one before that.
    last = max(int(sequence_number), 0)
    records = list(islice(shard.records.values(), last, last + (limit or GET_RECORDS_MAX)))
    return records, last + len(records), 0


Shard.get_max_sequence_number = last_sequence_number
Shard.get_records = alone(records_after)
Stream.get_shard_for_key = open_shard_for_key
Stream.put_record = alone(Stream.put_record)
Stream.split_shard = leaving_records(Stream.split_shard)
Stream.merge_shards = leaving_records(Stream.merge_shards)

if __name__ == "__main__":
    main()
