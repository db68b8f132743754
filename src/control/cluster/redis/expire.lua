-- Removes what has expired, also when nobody appends, and when there is no memory for an append.
-- Returns the bytes of the log.
local keep_ms = tonumber(ARGV[1])
local meta = redis.call('HMGET', META, 'q', 'c')
if not (meta[1] and meta[2]) then return 0 end
local gone, is_more = expire(now_ms(), keep_ms, meta[1], meta[2], 100)
redis.call('HSET', META, 'h', gone, 'x', is_more)
return meta[2] - gone + redis.call('HGET', META, 'k')
