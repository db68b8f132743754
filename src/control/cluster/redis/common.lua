-- The keys of a log, in this order in every script. All have the hash tag of the cluster's name.
--   meta   hash: e epoch, q last sequence, s second of the newest mark, c bytes of all entries so
--          far, h those of them that have left the stream, k bytes of the kept entries, x '1' if
--          more has expired than was removed
--   log    stream: entries by ids SEQUENCE-0, for as long as keep_s
--   kept   sorted set: entries that live longer than the stream keeps them, by sequence
--   ends   sorted set: sequences of kept entries by the time at which they expire
--   marks  list: 'SECOND SEQUENCE BYTES' of the first entry of each second in the stream
-- An entry is 'SEQUENCE STORED ENDS PREDECESSOR BODY': when it was stored and when it expires, in
-- milliseconds, 0 for never; and the sequence of the subject's entry before it, 0 if there is none.
local META, LOG, KEPT, ENDS, MARKS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

-- Lua writes large numbers with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function predecessor(entry)
  return string.match(entry, '^%d+ %d+ %d+ (%d+) ')
end

-- Removes a kept entry. Returns its predecessor, or nil if there is no such entry.
local function forget_kept(sequence)
  local entry = redis.call('ZRANGEBYSCORE', KEPT, sequence, sequence)[1]
  if not entry then return nil end
  redis.call('ZREMRANGEBYSCORE', KEPT, sequence, sequence)
  redis.call('ZREM', ENDS, sequence)
  redis.call('HINCRBY', META, 'k', -#entry)
  return predecessor(entry)
end

-- Removes an entry and all before it of its subject.
local function forget(sequence)
  while sequence and sequence ~= '0' do
    local id = sequence .. '-0'
    local found = redis.call('XRANGE', LOG, id, id)[1]
    local before = nil
    if found then
      before = predecessor(found[2][2])
      redis.call('XDEL', LOG, id)
    end
    sequence = forget_kept(sequence) or before
  end
end

-- Corrects marks that were made while the server's clock was ahead: their entries count as stored
-- now.
local function correct_marks(now)
  local present = math.floor(now / 1000)
  for index, mark in ipairs(redis.call('LRANGE', MARKS, 0, -1)) do
    local second, rest = string.match(mark, '^(%d+)( .*)$')
    if tonumber(second) > present then
      redis.call('LSET', MARKS, index - 1, digits(present) .. rest)
    end
  end
end

-- Removes what has expired, a bounded number of entries at a time. Takes the last sequence and the
-- bytes of all entries so far. Returns the values of h and x.
local function expire(now, keep_ms, last, total, steps)
  local gone, is_more = total, '1'
  for _ = 1, steps do
    local marks = redis.call('LRANGE', MARKS, 0, 1)
    gone = marks[1] and string.match(marks[1], '(%d+)$') or total
    if not marks[1] then is_more = '0' break end
    local second, first
    if marks[2] then
      second, first = string.match(marks[2], '^(%d+) (%d+) ')
    else
      second, first = string.match(marks[1], '^(%d+) ') + 1, digits(last + 1)
    end
    -- The second after the present one is that of no mark, but the end of the newest one.
    if (second - 1) * 1000 > now then correct_marks(now) end
    if second * 1000 + keep_ms > now then is_more = '0' break end
    -- Whole nodes of the stream only, which costs little; a few entries live longer.
    if redis.call('XTRIM', LOG, 'MINID', '~', first, 'LIMIT', 1000) == 0 then
      redis.call('LPOP', MARKS)
    end
  end
  local ended = redis.call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, steps)
  for _, sequence in ipairs(ended) do
    if not forget_kept(sequence) then redis.call('ZREM', ENDS, sequence) end
  end
  if #ended >= steps then is_more = '1' end
  return gone, is_more
end
