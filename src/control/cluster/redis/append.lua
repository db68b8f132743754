-- Stores an entry. Further keys: the last sequence of the subject; the sequence of the entry with
-- this id. Returns {'stored', SEQUENCE} or {'epoch'}, {'conflict'}, {'full'}.
local SUBJECT, ID = KEYS[6], KEYS[7]
local epoch, ttl_ms, replaces, expected = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local keep_ms, max_bytes, repeat_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local touches, body = ARGV[8], ARGV[9]
-- What Redis needs for an entry besides its bytes, about.
local OVERHEAD = 256

local meta = redis.call('HMGET', META, 'e', 'q', 's', 'c', 'k', 'h', 'x')
if meta[1] ~= epoch then return {'epoch'} end
local gone, is_more = meta[6], meta[7]
local found = redis.call('MGET', ID, SUBJECT)
local stored, last = found[1], found[2] or '0'
if stored then
  -- Written again, so that WAIT after this script waits for that write and all before it.
  if touches == '1' then redis.call('SET', ID, stored, 'KEEPTTL') end
  return {'stored', stored}
end
if expected ~= '' and expected ~= last then return {'conflict'} end

local bytes = #body + #SUBJECT + OVERHEAD
local is_kept = ttl_ms == '' or tonumber(ttl_ms) > keep_ms
local is_state = replaces == '1' or ttl_ms == ''
local used, needed = meta[4] - gone + meta[5], is_kept and 2 * bytes or bytes
-- A node refuses events above the same bound, as soon as it knows the size.
local is_full = not is_state and used >= max_bytes * 0.8
if is_full or used + needed > max_bytes then return {'full'} end

local now = now_ms()
local sequence = digits(meta[2] + 1)
local before = replaces == '1' and '0' or last
local ends = ttl_ms == '' and '0' or digits(now + ttl_ms)
local entry = table.concat({sequence, digits(now), ends, before, body}, ' ')
redis.call('XADD', LOG, sequence .. '-0', 'e', entry)
if is_kept then
  redis.call('ZADD', KEPT, sequence, entry)
  redis.call('HINCRBY', META, 'k', #entry)
  if ttl_ms ~= '' then redis.call('ZADD', ENDS, ends, sequence) end
end
local second = digits(math.floor(now / 1000))
local total = digits(meta[4] + bytes)
if second ~= meta[3] then
  redis.call('RPUSH', MARKS, second .. ' ' .. sequence .. ' ' .. meta[4])
end
-- Looked for once a second, and until nothing is left.
if second ~= meta[3] or is_more == '1' then
  gone, is_more = expire(now, keep_ms, sequence, total, 4)
end
redis.call('HSET', META, 'q', sequence, 's', second, 'c', total, 'h', gone, 'x', is_more)
local lives_ms = ttl_ms ~= '' and tonumber(ttl_ms)
if last ~= '0' then
  if replaces == '1' then
    forget(last)
  elseif lives_ms then
    -- The predecessor may live longer.
    local left_ms = redis.call('PTTL', SUBJECT)
    lives_ms = left_ms ~= -1 and math.max(lives_ms, left_ms)
  end
end
if lives_ms then
  redis.call('SET', SUBJECT, sequence, 'PX', digits(lives_ms))
else
  redis.call('SET', SUBJECT, sequence)
end
redis.call('SET', ID, sequence, 'PX', repeat_ms)
return {'stored', sequence}
