-- Removes all entries of a subject. A further key: its last sequence.
forget(redis.call('GET', KEYS[6]))
redis.call('UNLINK', KEYS[6])
